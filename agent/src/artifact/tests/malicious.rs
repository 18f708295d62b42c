//! One test for each thing an archive may try. Each is refused whole: nothing of it is ever visible.

use super::*;
use baton_core::problem::Code;
use std::io::Read;
use tar::EntryType;

/// The archive is refused for this reason, the sibling that came before it is not there either, and nothing is left behind.
async fn refused(archive: Vec<u8>, why: &str) {
    refused_by(&store(), archive, why).await;
}

async fn refused_by(store: &Store, archive: Vec<u8>, why: &str) {
    let outside = store.root.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let problem = store.place(&archive).await.unwrap_err();
    assert_eq!(problem.code, Code(610), "{problem:?}");
    let said = format!("{}: {}", problem.seen[0].1, problem.what);
    assert!(said.contains(why), "{said:?} does not say `{why}`");
    assert_eq!(store.names(), Vec::<String>::new(), "something was left behind");
    assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
}

fn good() -> Forge {
    Forge::default().file("good", b"good")
}

#[tokio::test]
async fn absolute_paths_are_refused() {
    refused(good().file("/etc/cron.d/evil", b"x").done(), "absolute").await;
    refused(good().pax(&[("path", b"/etc/evil")]).file("evil", b"x").done(), "absolute").await;
}

#[tokio::test]
async fn paths_that_climb_are_refused() {
    for name in ["../outside", "bin/../../outside", "..", "./../outside"] {
        refused(good().file(name, b"x").done(), "leads outside").await;
    }
    refused(good().pax(&[("path", b"a/../../outside")]).file("fine", b"x").done(), "leads outside").await;
    refused(
        good().entry(EntryType::GNULongName, "././@LongLink", 0o644, b"../outside\0").file("fine", b"x").done(),
        "leads outside",
    )
    .await;
}

#[tokio::test]
async fn links_that_lead_outside_are_refused() {
    refused(good().symlink("evil", "/etc/passwd").done(), "absolute path").await;
    refused(good().symlink("evil", "../outside").done(), "leads outside").await;
    refused(good().symlink("a/b/evil", "../../../outside").done(), "leads outside").await;
    refused(good().symlink("evil", "good/../../outside").done(), "may lead outside").await;
    refused(good().pax(&[("linkpath", b"../outside")]).symlink("evil", "good").done(), "leads outside").await;
}

#[tokio::test]
async fn nothing_is_written_through_a_link() {
    let archive = good().symlink("a/up", "..").symlink("evil", "a/up/../../outside").done();
    refused(archive, "may lead outside").await;
    refused(good().symlink("dir", "good").file("dir/evil", b"x").done(), "not a folder").await;
    refused(good().symlink("dir", "elsewhere").folder("dir").done(), "twice").await;
    refused(good().symlink("evil", "good").file("evil", b"x").done(), "twice").await;
}

#[tokio::test]
async fn hard_links_that_lead_outside_are_refused() {
    for target in ["/etc/passwd", "../outside"] {
        refused(good().link(EntryType::Link, "evil", target).done(), "leads outside").await;
    }
    for target in ["missing", "evil", "link"] {
        refused(good().symlink("link", "good").link(EntryType::Link, "evil", target).done(), "not a file before it").await;
    }
}

#[tokio::test]
async fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Char, EntryType::Block] {
        refused(good().entry(kind, "evil", 0o666, b"").done(), "device").await;
    }
    refused(good().entry(EntryType::Fifo, "evil", 0o666, b"").done(), "named pipe").await;
    for kind in [EntryType::Continuous, EntryType::new(b'V'), EntryType::new(b'M'), EntryType::new(b'Z')] {
        refused(good().entry(kind, "evil", 0o666, b"").done(), "neither a file").await;
    }
}

#[tokio::test]
async fn setuid_and_setgid_are_refused() {
    for mode in [0o4755, 0o2755, 0o6755] {
        refused(good().entry(EntryType::Regular, "evil", mode, b"x").done(), "setuid or setgid").await;
    }
    refused(good().entry(EntryType::Directory, "evil", 0o2755, b"").done(), "setuid or setgid").await;
}

#[tokio::test]
async fn security_attributes_are_refused() {
    for key in ["SCHILY.xattr.security.capability", "LIBARCHIVE.xattr.security.capability", "RHT.security.selinux"] {
        refused(good().pax(&[(key, b"x")]).file("evil", b"x").done(), key).await;
    }
    refused(good().pax(&[("SCHILY.acl.access", b"x")]).file("evil", b"x").done(), "SCHILY.acl.access").await;
}

#[tokio::test]
async fn names_with_control_characters_are_refused() {
    for name in ["ev\x1bil", "ev\nil", "ev\x7fil"] {
        refused(good().file(name, b"x").done(), "control character").await;
    }
    refused(good().pax(&[("path", b"ev\0il")]).file("fine", b"x").done(), "control character").await;
    refused(good().symlink("evil", "go\nod").done(), "control character").await;
    refused(good().pax(&[("path", b"ev\xffil")]).file("fine", b"x").done(), "UTF-8").await;
}

#[tokio::test]
async fn odd_parts_of_a_path_are_refused() {
    for name in ["a//b", "a/./b", "a/", "././a"] {
        refused(good().file(name, b"x").done(), "empty part").await;
    }
    refused(good().pax(&[("path", b"")]).file("fine", b"x").done(), "empty part").await;
}

#[tokio::test]
async fn entries_that_are_there_twice_are_refused() {
    refused(good().file("good", b"other").done(), "twice").await;
    refused(good().file("./good", b"other").done(), "twice").await;
    refused(good().folder("good").done(), "twice").await;
    refused(good().folder("a").folder("a").done(), "twice").await;
    refused(good().folder("./").folder(".").done(), "twice").await;
}

#[tokio::test]
async fn entries_that_differ_only_in_case_are_refused() {
    refused(good().file("GOOD", b"other").done(), "only in case").await;
    refused(good().file("a/x", b"x").file("A/y", b"y").done(), "only in case").await;
    refused(good().file("stra\u{df}e", b"x").file("STRA\u{1e9e}E", b"x").done(), "only in case").await;
}

#[tokio::test]
async fn sparse_files_are_refused() {
    refused(good().entry(EntryType::GNUSparse, "evil", 0o644, b"").done(), "sparse").await;
    refused(good().pax(&[("GNU.sparse.major", b"1")]).file("evil", b"x").done(), "GNU.sparse.major").await;
}

#[tokio::test]
async fn sizes_that_are_negative_or_not_plain_are_refused() {
    let sized = |field: [u8; 12]| {
        good().with(EntryType::Regular, "evil", 0o644, b"x", move |header| header.as_old_mut().size = field).done()
    };
    refused(sized([0xff; 12]), "size").await;
    refused(sized(*b"\x80\0\0\0\0\0\0\0\0\0\0\x01"), "size").await;
    refused(sized(*b"-0000000001\0"), "size").await;
    refused(sized(*b"00000000009\0"), "size").await;
    refused(sized(*b"77777777777\0"), "more than").await;
}

#[tokio::test]
async fn headers_that_disagree_are_refused() {
    // One reader believes the extended size and skips an entry that another reader, which believes the header, sees.
    refused(good().pax(&[("size", b"1024")]).file("evil", b"x").done(), "disagree").await;
    refused(good().pax(&[("size", b"0")]).file("evil", b"x").done(), "disagree").await;
    refused(good().pax(&[("size", b"1"), ("size", b"1")]).file("evil", b"x").done(), "twice").await;
    refused(good().pax(&[("path", b"a"), ("path", b"b")]).file("evil", b"x").done(), "twice").await;
    refused(good().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("evil", b"x").done(), "differently").await;
    let long = good().pax(&[("path", b"a")]).entry(EntryType::GNULongName, "././@LongLink", 0o644, b"b\0");
    refused(long.file("evil", b"x").done(), "differently").await;
    refused(good().pax(&[("path", b"a")]).done(), "no entry after it").await;
    refused(good().entry(EntryType::Directory, "evil", 0o755, b"content").done(), "has content").await;
    refused(good().global("path", "evil").file("fine", b"x").done(), "global header").await;
    refused(good().entry(EntryType::XHeader, "PaxHeader", 0o644, b"99 path").file("evil", b"x").done(), "extended header")
        .await;
}

#[tokio::test]
async fn trailing_data_is_refused() {
    refused(good().bytes(&[0; 1024]).file("evil", b"x").done(), "follows the end").await;
    refused([good().done(), forge::compress(b"more")].concat(), "follows the end").await;
    refused([good().done(), b"no zstd".to_vec()].concat(), "").await;
}

#[tokio::test]
async fn broken_archives_are_refused() {
    refused(b"this is no archive".to_vec(), "").await;
    refused(Vec::new(), "").await;
    let whole = good().file("more", &[7; 5000]).done();
    refused(whole[..whole.len() - 7].to_vec(), "").await;
    refused(good().with(EntryType::Regular, "evil", 0o644, &[7; 2000], |header| header.set_size(4000)).unended(), "").await;
    let mut bent = Forge::default().file("good", b"good").unended();
    bent.truncate(bent.len() / 2);
    refused(bent, "").await;
}

#[tokio::test]
async fn every_bound_is_reached() {
    let many = (0..60).fold(good(), |forge, index| forge.file(&format!("f{index}"), b""));
    refused(many.done(), "more than 50 entries").await;
    refused(good().file("a/b/c/d/e/f", b"x").done(), "too deep").await;
    refused(good().pax(&[("path", "x".repeat(101).as_bytes())]).file("fine", b"x").done(), "too long").await;
    refused(good().pax(&[("comment", &[b'x'; 2000])]).file("fine", b"x").done(), "extended header is too long").await;
    refused(good().file("big", &forge::noise(2 << 20)).done(), "more than 1.0 MB").await;
    refused(good().file("bomb", &vec![0; 900 << 10]).done(), "200 times its size").await;
    let slow = store_with(Bounds { time: std::time::Duration::ZERO, ..bounds() });
    refused_by(&slow, good().done(), "takes longer").await;
}

/// What is wrong with the whole of it is not mended by packing other things.
#[tokio::test]
async fn the_help_fits_what_is_wrong() {
    let link = good().symlink("link", "/etc/passwd").done();
    let huge = good().file("bomb", &vec![0; 900 << 10]).done();
    let helps = [(link, "relative links"), (b"no archive".to_vec(), "build it once more"), (huge, "leave out")];
    for (archive, help) in helps {
        let problem = store().place(&archive).await.unwrap_err();
        assert!(problem.help.as_deref().is_some_and(|said| said.contains(help)), "{problem:?}");
    }
}

#[tokio::test]
async fn a_decompressor_that_would_need_much_memory_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.include_contentsize(false).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(1 << 20), &mut encoder).unwrap();
    refused(encoder.finish().unwrap(), "too much memory").await;
}
