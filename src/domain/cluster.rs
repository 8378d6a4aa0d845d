//! CLUSTER NODES as data, and which slots belong to whom. Compares; never asks a node.
//!
//! The text form is that of `clusterGenNodeDescription` in Redis's `cluster.c`, the same from 6.2 on.

use std::fmt;

use serde::Serialize;

use super::{manifest::NodeRole, observation::listening, rdb::SlotRange, source::NodeAddress};

pub const SLOTS: u16 = 16384;

/// One line of CLUSTER NODES: what one node says of another or of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    pub id: String,
    /// By IP address. None if it is not known, as of a node about itself before it met another.
    pub address: Option<NodeAddress>,
    /// By the host name that it announces, if it does: what a certificate can name.
    pub named: Option<NodeAddress>,
    pub port: u16,
    pub myself: bool,
    pub role: NodeRole,
    /// A majority calls it dead, or it has not joined yet.
    pub gone: bool,
    pub primary_id: Option<String>,
    pub config_epoch: u64,
    pub slots: Vec<SlotRange>,
    /// Slots on their way to or from another node.
    pub moving: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CLUSTER NODES holds a line that cannot be read: {line:?}")]
pub struct Error {
    line: String,
}

/// A primary's slots by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    pub id: String,
    pub config_epoch: u64,
    /// Sorted, not touching one another.
    pub slots: Vec<SlotRange>,
}

/// Who owns which slots, read from every primary itself; in order of the first slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotMap(pub Vec<Claim>);

impl SlotMap {
    /// The shards of this later map that must be captured again if `before` was the map when they
    /// were captured: they gained or lost a slot, or may have for a while, as a new config epoch tells.
    pub fn changed_since(&self, before: &Self) -> Vec<usize> {
        let is_new = |(index, claim)| (!before.0.contains(claim)).then_some(index);
        self.0.iter().enumerate().filter_map(is_new).collect()
    }

    /// Slots that nobody claims.
    pub fn uncovered(&self) -> Vec<SlotRange> {
        let claimed = |slot| self.0.iter().any(|claim| holds(&claim.slots, slot));
        ranges((0..SLOTS).filter(|slot| !claimed(*slot)))
    }

    /// The first slot that two claim, and who they are.
    pub fn claimed_twice(&self) -> Option<(u16, &Claim, &Claim)> {
        (0..SLOTS).find_map(|slot| {
            let mut claims = self.0.iter().filter(|claim| holds(&claim.slots, slot));
            claims.next().zip(claims.next()).map(|(first, second)| (slot, first, second))
        })
    }
}

fn holds(ranges: &[SlotRange], slot: u16) -> bool {
    ranges.iter().any(|range| range.contains(slot))
}

/// Sorted slots as ranges.
fn ranges(slots: impl Iterator<Item = u16>) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == slot => range.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot }),
        }
    }
    ranges
}

/// `0-5460,8000` for people.
pub fn print_ranges(ranges: &[SlotRange]) -> impl fmt::Display {
    let texts = ranges.iter().map(|range| {
        if range.first == range.last { range.first.to_string() } else { range.to_string() }
    });
    texts.collect::<Vec<_>>().join(",")
}

/// Of what a node says of all nodes, what it says of its own shard. All of it where it does not tell its own place.
pub fn own_shard(nodes: Vec<ClusterNode>) -> Vec<ClusterNode> {
    let Some(myself) = nodes.iter().find(|node| node.myself) else { return nodes };
    let primary = myself.primary_id.clone().unwrap_or_else(|| myself.id.clone());
    let belongs = |node: &ClusterNode| {
        node.myself || node.id == primary || node.primary_id.as_ref() == Some(&primary)
    };
    nodes.into_iter().filter(belongs).collect()
}

pub fn parse_nodes(text: &str) -> Result<Vec<ClusterNode>, Error> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| parse(line).ok_or_else(|| Error { line: line.to_owned() })).collect()
}

/// `<id> <ip:port@bus[,host[,aux=…]]> <flags> <primary|-> <ping> <pong> <epoch> <link> <slot>…`
fn parse(line: &str) -> Option<ClusterNode> {
    let mut words = line.split_ascii_whitespace();
    let id = words.next()?.to_owned();
    let (address, named, port) = parse_address(words.next()?)?;
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let primary_id = words.next().filter(|id| *id != "-").map(str::to_owned);
    let config_epoch = words.nth(2)?.parse().ok()?;
    words.next()?;
    let (mut slots, mut moving) = (Vec::new(), Vec::new());
    for word in words {
        if let Some(inner) = word.strip_prefix('[') {
            moving.push(inner.split('-').next()?.parse().ok().filter(|slot| *slot < SLOTS)?);
        } else {
            slots.push(parse_range(word)?);
        }
    }
    slots.sort();
    let flagged = |flag| flags.contains(&flag);
    let role = if flagged("master") { NodeRole::Primary } else { NodeRole::Replica };
    Some(ClusterNode {
        id,
        address: address.filter(|_| !flagged("noaddr")),
        named,
        port,
        myself: flagged("myself"),
        role,
        gone: flagged("fail") || flagged("noaddr") || flagged("handshake"),
        primary_id,
        config_epoch,
        slots,
        moving,
    })
}

type Addresses = (Option<NodeAddress>, Option<NodeAddress>, u16);

fn parse_address(text: &str) -> Option<Addresses> {
    let mut parts = text.split(',');
    let (host, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    // `?` stands for an endpoint that is not told.
    let name = parts.next().filter(|name| !name.is_empty() && *name != "?");
    let at = |host| listening(host, u64::from(port));
    Some((at(host), name.and_then(at), port))
}

fn parse_range(word: &str) -> Option<SlotRange> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let range = SlotRange { first: first.parse().ok()?, last: last.parse().ok()? };
    (range.first <= range.last && range.last < SLOTS).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "07c37dfeb235213a872192d90877d0cd55635b91";
    const B: &str = "67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1";

    /// Replies of Redis 6.2, 7.0 with a host name, 7.2 and later, and Valkey 9.
    #[test]
    fn the_lines_of_all_versions_are_read() {
        let text = format!(
            "{A} 127.0.0.1:30004@31004 slave {B} 0 1426238317239 4 connected\n\
             {B} 127.0.0.1:30002@31002,redis-1.redis master - 0 1426238316232 2 connected 5461-10922\n\
             {A} 127.0.0.1:30003@31003,,tls-port=0,shard-id=69bc master,fail? - 0 1426238318243 3 connected 10923-16383 7\n\
             {B} ::1:30001@31001,?,shard-id=69bc myself,master - 0 0 1 connected 0-5460 [93-<-{A}] [77->-{A}]\n\
             {A} :0@0 master,noaddr - 1 1 0 disconnected\n\
             {A} :30005@31005 myself,master - 0 0 0 connected\n"
        );
        let nodes = parse_nodes(&text).unwrap();
        assert_eq!(nodes[0].role, NodeRole::Replica);
        assert_eq!(nodes[0].primary_id.as_deref(), Some(B));
        assert_eq!(nodes[0].config_epoch, 4);
        assert_eq!(nodes[1].address, Some(NodeAddress::new("127.0.0.1", 30002)));
        assert_eq!(nodes[1].named, Some(NodeAddress::new("redis-1.redis", 30002)));
        assert_eq!(nodes[1].slots, [SlotRange { first: 5461, last: 10922 }]);
        assert_eq!(nodes[2].address, Some(NodeAddress::new("127.0.0.1", 30003)));
        assert_eq!(
            nodes[2].slots,
            [SlotRange { first: 7, last: 7 }, SlotRange { first: 10923, last: 16383 }],
        );
        assert!(!nodes[2].gone, "one node's suspicion is no failure");
        assert_eq!(nodes[3].address, Some(NodeAddress::new("::1", 30001)));
        assert!(nodes[0].named.is_none() && nodes[2].named.is_none() && nodes[3].named.is_none());
        assert_eq!((nodes[3].myself, nodes[3].moving.as_slice()), (true, [93, 77].as_slice()));
        assert!(nodes[4].gone && nodes[4].address.is_none());
        assert_eq!((nodes[5].address.as_ref(), nodes[5].port), (None, 30005));
    }

    #[test]
    fn of_its_own_shard_a_node_keeps_what_it_says() {
        let text = "p1 10.0.0.1:1@2 master - 0 0 1 connected 0-5\nr1 10.0.0.2:1@2 slave p1 0 0 1 connected\n\
                    p2 10.0.0.3:1@2 master - 0 0 2 connected 6-9\nr2 10.0.0.4:1@2 slave p2 0 0 2 connected\n";
        for (me, expected) in [("p1", ["p1", "r1"]), ("r1", ["p1", "r1"]), ("r2", ["p2", "r2"])] {
            let mut nodes = parse_nodes(text).unwrap();
            for node in &mut nodes {
                node.myself = node.id == me;
            }
            let ids: Vec<String> = own_shard(nodes).into_iter().map(|node| node.id).collect();
            assert_eq!(ids, expected, "{me}");
        }
        assert_eq!(own_shard(parse_nodes(text).unwrap()).len(), 4, "its place is not told");
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        for text in [
            "hello",
            "id 127.0.0.1:1@2 master - 0 0 x connected",
            "id 127.0.0.1:1@2 master - 0 0 1 connected 5-4",
            "id 127.0.0.1:1@2 master - 0 0 1 connected 0-16384",
            "id 127.0.0.1:1@2 master - 0 0 1 connected [99999->-x]",
        ] {
            assert!(parse_nodes(text).is_err(), "{text}");
        }
    }

    fn claim(id: &str, config_epoch: u64, first: u16, last: u16) -> Claim {
        Claim { id: id.to_owned(), config_epoch, slots: vec![SlotRange { first, last }] }
    }

    #[test]
    fn every_shard_that_gained_or_lost_a_slot_is_captured_again() {
        let before =
            SlotMap(vec![claim("a", 1, 0, 99), claim("b", 2, 100, 199), claim("c", 3, 200, 16383)]);
        assert!(before.changed_since(&before).is_empty());
        let moved =
            SlotMap(vec![claim("a", 1, 0, 89), claim("b", 4, 90, 199), claim("c", 3, 200, 16383)]);
        assert_eq!(moved.changed_since(&before), [0, 1]);
        let there_and_back =
            SlotMap(vec![claim("a", 5, 0, 99), claim("b", 4, 100, 199), claim("c", 3, 200, 16383)]);
        assert_eq!(there_and_back.changed_since(&before), [0, 1]);
    }

    #[test]
    fn holes_and_double_claims_are_found() {
        let map = SlotMap(vec![claim("a", 1, 0, 99), claim("b", 2, 99, 16382)]);
        assert_eq!(print_ranges(&map.uncovered()).to_string(), "16383");
        let (slot, first, second) = map.claimed_twice().unwrap();
        assert_eq!((slot, first.id.as_str(), second.id.as_str()), (99, "a", "b"));
        let whole = SlotMap(vec![claim("a", 1, 0, 16383)]);
        assert!(whole.uncovered().is_empty() && whole.claimed_twice().is_none());
    }
}
