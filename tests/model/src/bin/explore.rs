use baton_model::*;
fn main(){
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |w: &str| args.iter().any(|a| a == w);
    let n = |w: &str| args.iter().find_map(|a| a.strip_prefix(w)).map_or(0, |v| v.parse::<u8>().unwrap());
    let budget = Budget{ faults: n("faults="), crashes: has("crash") as u8, doubles: has("double") as u8, parties: if has("power") {0b11111} else { n("power=") }, exits: if has("exit") {0b111} else {0}, late: has("late") as u8, silences: has("silence") as u8, failures: has("fail") as u8, hurries: has("hurry") as u8, rollbacks: has("back") as u8 };
    let manner = if has("beside") {Manner::Beside} else if has("together") {Manner::Together} else if has("exclusive") {Manner::Exclusive} else {Manner::InPlace};
    let scope = Scope{ name:"x", hosts: n("hosts=") as usize, balancers: n("lbs=") as usize, manner, lossy: has("lossy"), busy: has("busy"), store: if has("copied") {Store::Copied} else {Store::Shared}, reports: if has("way") {Reports::UnderWay} else {Reports::AtOnce}, budget };
    println!("{args:?}");
    println!("{:?}", explore(scope, 2, std::time::Duration::from_secs(n("limit=").max(60) as u64)));
}
