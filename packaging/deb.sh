# The .deb. Sourced by packaging/build.

# make_deb PACKAGE ROOT
make_deb() {
    local package=$1 tree=$work/deb/$1 architecture
    architecture=$(dpkg --print-architecture)
    mkdir -p "$work/deb"
    cp -a "$2" "$tree"
    mkdir -p "$tree/DEBIAN"
    copyright >"$tree/usr/share/doc/$package/copyright"
    gzip -dc "$tree/usr/share/doc/$package/changelog.gz" | gzip -9n >"$tree/usr/share/doc/$package/changelog.md.gz"
    debian_changelog "$package" | gzip -9n >"$tree/usr/share/doc/$package/changelog.gz"
    lintian_overrides "$package" "$tree"
    if [ -d "$tree/usr/lib/systemd/system" ]; then
        local script
        for script in postinst prerm postrm; do
            filled "$package" "$top/packaging/scripts/$script" >"$tree/DEBIAN/$script"
            chmod 0755 "$tree/DEBIAN/$script"
        done
    fi
    (cd "$tree" && find etc -type f -printf '/%p\n' 2>/dev/null | sort) >"$tree/DEBIAN/conffiles" || true
    [ -s "$tree/DEBIAN/conffiles" ] || rm "$tree/DEBIAN/conffiles"
    (cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum) >"$tree/DEBIAN/md5sums"
    debian_control "$package" "$architecture" "$tree" >"$tree/DEBIAN/control"
    chmod 0644 "$tree/DEBIAN/control" "$tree/DEBIAN/md5sums"
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz -z"$level" --build "$tree" "$out/${package}_${version}_${architecture}.deb" >/dev/null
}

# What lintian says and is not mended, each with its reason.
lintian_overrides() {
    local overrides=$2/usr/share/lintian/overrides/$1
    mkdir -p "${overrides%/*}"
    filled "$1" "$top/packaging/scripts/lintian-overrides" >"$overrides"
    if [ -d "$2/usr/lib/systemd/system" ]; then
        filled "$1" "$top/packaging/scripts/lintian-overrides.service" >>"$overrides"
    fi
    chmod 0644 "$overrides"
}

debian_control() {
    local package=$1 architecture=$2 tree=$3 depends
    # dpkg-shlibdeps reads a source package's control file, and is content with an empty one.
    mkdir -p "$work/shlibs/debian"
    : >"$work/shlibs/debian/control"
    depends=$(cd "$work/shlibs" && dpkg-shlibdeps -O "$tree/usr/bin/$package" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    [ -n "$depends" ] || { echo "packaging/build: dpkg-shlibdeps says nothing about $package" >&2; return 1; }
    [ ! -e "$tree/DEBIAN/postinst" ] || depends="$depends, systemd | systemd-standalone-sysusers"
    # The agent speaks with systemd over the system bus.
    [ "$package" != baton-agent ] || depends="$depends, default-dbus-system-bus | dbus-system-bus"
    cat <<CONTROL
Package: $package
Version: $version
Architecture: $architecture
Maintainer: The Baton developers <baton@example.invalid>
Installed-Size: $(du -k -s --apparent-size --exclude DEBIAN "$tree" | cut -f 1)
Depends: $depends
Section: admin
Priority: optional
Homepage: https://example.invalid/baton
Description: $(about "$package")
$(details "$package" | sed -e 's/^$/./' -e 's/^/ /')
CONTROL
}

debian_changelog() {
    cat <<CHANGELOG
$1 ($version) unstable; urgency=medium

  * See changelog.md.gz.

 -- The Baton developers <baton@example.invalid>  $(date -u -R --date="@$SOURCE_DATE_EPOCH")
CHANGELOG
}

copyright() {
    cat <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: baton
Source: https://example.invalid/baton

Files: *
Copyright: $(date -u +%Y --date="@$SOURCE_DATE_EPOCH") The Baton developers
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
COPYRIGHT
}
