# One package's files as they will lie on a host. Sourced by packaging/build, for both formats.

# stage PACKAGE ROOT
stage() {
    local package=$1 root=$2 docs=$2/usr/share/doc/$1
    mkdir -p "$root"
    [ ! -d "$top/packaging/$package/root" ] || cp -R "$top/packaging/$package/root/." "$root/"
    install -D -m 0755 "$binaries/$package" "$root/usr/bin/$package"
    strip --strip-unneeded --remove-section=.comment "$root/usr/bin/$package"
    # Once more, as they come: to start over from, and for a package that is packed again on its host.
    [ ! -d "$root/etc/baton" ] || install -D -m 0644 -t "$root/usr/share/$package" "$root"/etc/baton/*
    install -D -m 0644 "$top/CHANGELOG.md" "$docs/changelog"
    gzip -9n "$docs/changelog"
    install -D -m 0644 -t "$docs/docs" "$top"/docs/*.md
    stage_pages "$package" "$root/usr/share/man"
    [ "$package" != baton ] || { stage_completions "$root"; stage_schema "$root"; }
    find "$root" -type d -exec chmod 0755 {} +
    find "$root" -type f ! -path "$root/usr/bin/*" -exec chmod 0644 {} +
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# A package's manual pages, with that of the file it reads.
stage_pages() {
    local page section
    for page in "$top/packaging/man/$1".[158] "$top/packaging/man/$1.toml.5"; do
        [ -e "$page" ] || continue
        section=${page##*.}
        install -D -m 0644 "$page" "$2/man$section/${page##*/}"
        gzip -9n "$2/man$section/${page##*/}"
    done
}

stage_completions() {
    local share=$1/usr/share baton=$1/usr/bin/baton
    mkdir -p "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    "$baton" completions bash >"$share/bash-completion/completions/baton"
    "$baton" completions zsh >"$share/zsh/vendor-completions/_baton"
    "$baton" completions fish >"$share/fish/vendor_completions.d/baton.fish"
}

# Editors read it: see the first line of the examples.
stage_schema() {
    mkdir -p "$1/usr/share/baton"
    "$1/usr/bin/baton" config schema >"$1/usr/share/baton/manifest.schema.json"
}

# about PACKAGE: its one-line summary, then (details PACKAGE) the paragraphs.
about() { head -n 1 "$top/packaging/$1/about"; }
details() { tail -n +2 "$top/packaging/$1/about"; }

# filled PACKAGE FILE: a script with its package's names in it.
filled() {
    sed -e "s|@PACKAGE@|$1|g" -e "s|@UNIT@|$1.service|g" -e "s|@STATE@|/var/lib/$1|g" "$2"
}
