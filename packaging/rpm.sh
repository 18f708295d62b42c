# The .rpm, from the same staged files. Sourced by packaging/build.

# make_rpm PACKAGE ROOT
make_rpm() {
    local package=$1 tree=$work/rpm/$1 spec=$work/$1.spec
    mkdir -p "$work/rpm"
    cp -a "$2" "$tree"
    install -D -m 0644 "$top/LICENSE" "$tree/usr/share/licenses/$package/LICENSE"
    # zsh's folder for packages has another name there.
    if [ -d "$tree/usr/share/zsh" ]; then
        mv "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/zsh/site-functions"
    fi
    rpm_spec "$package" "$tree" >"$spec"
    rpmbuild --quiet -bb "$spec" --buildroot "$work/buildroot/$package" \
        --define "_topdir $work/rpmbuild" --define "_rpmdir $out" --define "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
        --define "_binary_payload $payload" --define "_buildhost baton" --define "_source_date_epoch_from_changelog 0" --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" --define "staged $tree"
}

# The folders that are nobody else's: erased with the package.
own_folders() {
    (cd "$2" && for folder in usr/share/doc/"$1" usr/share/licenses/"$1" usr/share/"$1" usr/share/baton; do
        [ ! -d "$folder" ] || find "$folder" -type d -printf '%%dir /%p\n'
    done) | LC_ALL=C sort -u
}

rpm_spec() {
    local package=$1 tree=$2
    cat <<SPEC
%global debug_package %{nil}
%global _build_id_links none
%global __os_install_post %{nil}
Name: $package
Version: $version
Release: 1
Summary: $(about "$package")
License: Apache-2.0
URL: https://example.invalid/baton
$([ ! -d "$tree/usr/lib/systemd" ] || echo "Requires: systemd")
$([ "$package" != baton-agent ] || echo "Requires: dbus")

%description
$(details "$package")

%install
cp -a %{staged}/. %{buildroot}/

$([ ! -d "$tree/usr/lib/systemd" ] || filled "$package" "$top/packaging/scripts/rpm-scriptlets")

%files
%defattr(-,root,root,-)
$(own_folders "$package" "$tree")
$(cd "$tree" && find . -type f -printf '/%P\n' | LC_ALL=C sort | sed -e 's|^/etc/|%config(noreplace) /etc/|' -e 's|^/usr/share/licenses/|%license /usr/share/licenses/|' -e 's|^/usr/share/doc/|%doc /usr/share/doc/|')
SPEC
}
