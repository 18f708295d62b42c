fn main(){
    let n: u8 = std::env::args().nth(1).map_or(0, |a| a.parse().unwrap());
    let budget = baton_model::Budget{ faults: n, crashes:1, doubles:1, parties:0b11111, exits:0b111, late:1, silences:1, failures:1, hurries:1, rollbacks: 1 };
    let scope = baton_model::Scope{ name:"x", hosts: std::env::args().nth(2).map_or(2, |a| a.parse().unwrap()), balancers: std::env::args().nth(3).map_or(1, |a| a.parse().unwrap()), manner: match std::env::args().nth(4).as_deref() { Some("b") => baton_model::Manner::Beside, Some("t") => baton_model::Manner::Together, Some("e") => baton_model::Manner::Exclusive, _ => baton_model::Manner::InPlace }, lossy: std::env::args().nth(5).is_some(), store: baton_model::Store::Shared, busy: std::env::args().nth(6).is_some(), budget };
    println!("{:?}", baton_model::explore(scope, 2, std::time::Duration::from_secs(120)));
}
