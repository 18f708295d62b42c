//! Hosts that could fail together are never out together.

use super::check;

#[test]
fn the_last_host_of_a_rack_waits_though_more_may_be_out() {
    check(
        "in-place max=3 spread v1->v2
         web1 rack=a a=v1:ready:in
         web2 rack=a a=v1:ready:in
         web3 rack=b a=v1:ready:in
         web4 rack=b a=v1:ready:in
         lb1",
        "lb1 takes web1/a out\n lb1 takes web3/a out\n web2 waits: spread\n web4 waits: spread",
    );
}

#[test]
fn a_host_that_is_down_counts_for_its_rack() {
    check(
        "in-place max=2 spread v1->v2
         web1 rack=a a=v1:failed:in
         web2 rack=a a=v1:ready:in
         web3 rack=b a=v1:ready:in
         web4 rack=b a=v1:ready:in
         lb1",
        "lb1 takes web1/a out\n lb1 takes web3/a out\n web2 waits: spread\n web4 waits: waiting",
    );
}

#[test]
fn a_host_alone_in_its_rack_is_replaced_as_any_other() {
    check(
        "in-place max=1 spread v1->v2\n web1 rack=a a=v1:ready:in\n web2 rack=b a=v1:ready:in\n lb1",
        "lb1 takes web1/a out\n web2 waits: waiting",
    );
}

#[test]
fn beside_the_old_nothing_of_a_rack_is_missing() {
    check(
        "side-by-side max=0 spread v1->v2\n web1 rack=a a=v1:ready:in\n web2 rack=a a=v1:ready:in\n lb1",
        "lb1 takes web1/b out\n lb1 takes web2/b out",
    );
}
