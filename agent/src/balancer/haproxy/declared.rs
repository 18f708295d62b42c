//! Which servers haproxy.cfg has: what can be a member of a pool, and on which side of it.

use super::row::Row;
use baton_core::fleet::ability::PoolServers;
use baton_core::name::PoolName;
use std::collections::BTreeMap;

/// The servers of every backend that can be a pool, by side.
pub(super) type Declared = BTreeMap<PoolName, PoolServers>;

/// Lists the servers of all backends.
pub(super) const LIST: &str = "show servers state";

/// The servers that a listing names, in or out.
pub(super) fn read(listing: &str) -> Declared {
    let mut declared = Declared::new();
    for row in Row::parse_all(listing) {
        let (backend, on_trial) = match row.backend().strip_suffix(super::TRIAL) {
            Some(backend) => (backend, true),
            None => (row.backend(), false),
        };
        let Some((pool, address)) = backend.parse().ok().zip(row.address()) else { continue };
        let PoolServers { stable, trial } = declared.entry(pool).or_default();
        if on_trial { trial } else { stable }.insert(address);
    }
    declared
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn the_servers_of_a_pool_are_those_of_both_its_backends_in_or_out() {
        let line = |backend: &str, port: u16, admin: u8| {
            format!("3 {backend} 1 s{port} 127.0.0.1 2 {admin} 1 1 9 1 0 0 0 0 0 0 - {port} - 0 0 - - 0\n")
        };
        let lines = [line("shop", 1, 0), line("shop", 2, 1), line("shop:trial", 1, 1), line("no pool!", 3, 0)];
        let declared = read(&format!("1\n# be_id\n{}", lines.concat()));
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let shop = PoolServers { stable: [one, two].into(), trial: [one].into() };
        assert_eq!(declared, [("shop".parse().unwrap(), shop)].into());
    }
}
