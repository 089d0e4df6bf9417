//! Places of a bounded resource, shared between owners. While a place is free, every newcomer
//! gets one. When all are taken, a place of the owner that holds most gives way. Without a
//! lock, a clock or a socket: the caller closes what gives way.
//!
//! Order of giving way:
//!
//! 1. An idle place: the owner that holds most of all places loses its oldest one.
//! 2. Without an idle place: the owner that holds most loses the one without progress for the
//!    longest time, if it still holds as many as the newcomer's owner afterwards.
//! 3. Otherwise the newcomer is refused.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;

use crate::time::Instant;

/// Holder of the connections of one client: an IPv4 address, or an IPv6 network of 64 bits,
/// which is what one client has at its disposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressOwner {
    /// An IPv4 address, also one that is mapped into IPv6.
    V4(u32),
    /// The upper half of an IPv6 address.
    V6(u64),
}

impl AddressOwner {
    /// Returns the owner of a client's connections.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => AddressOwner::V4(ip.to_bits()),
            // Reason: the upper 64 of 128 bits fit.
            IpAddr::V6(ip) => AddressOwner::V6(u64::try_from(ip.to_bits() >> 64).unwrap_or(0)),
        }
    }
}

/// Number of a place. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(u64);

/// Answer to a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A place was free.
    Free(PlaceId),
    /// Another place gives way. The caller closes what holds it, and releases it then.
    Replaces {
        /// The newcomer's place.
        place: PlaceId,
        /// What gives way.
        victim: Victim,
    },
    /// Every other owner holds less, or too many places are giving way already.
    Full,
}

/// A place that gives way to a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The place.
    pub place: PlaceId,
    /// Nothing was under way there.
    pub was_idle: bool,
}

/// Places of one resource.
pub struct Shares<O> {
    limit: usize,
    /// Places that may give way at the same time: their connections are still open.
    max_leaving: usize,
    last_id: u64,
    places: HashMap<PlaceId, Place<O>>,
    leaving: usize,
    owners: HashMap<O, OwnerPlaces>,
    /// Owners with an idle place, the first to give way last.
    idle_ranks: BTreeSet<(usize, Reverse<Instant>, O)>,
    /// All owners, the one that holds most last.
    ranks: BTreeSet<(usize, O)>,
}

struct Place<O> {
    owner: O,
    use_: PlaceUse,
}

/// Use of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceUse {
    /// Something is under way.
    Busy,
    /// Nothing is lost when it gives way.
    Idle(Instant),
    /// It gives way, and its owner has lost it.
    Leaving,
}

#[derive(Default)]
struct OwnerPlaces {
    busy: BTreeSet<PlaceId>,
    idle: BTreeSet<(Instant, PlaceId)>,
}

impl OwnerPlaces {
    fn count(&self) -> usize {
        self.busy.len() + self.idle.len()
    }
}

impl<O: Copy + Debug + Eq + Hash + Ord> Shares<O> {
    /// Creates a resource with `limit` places.
    pub fn new(limit: usize) -> Self {
        Shares {
            limit,
            max_leaving: limit / 8 + 8,
            last_id: 0,
            places: HashMap::new(),
            leaving: 0,
            owners: HashMap::new(),
            idle_ranks: BTreeSet::new(),
            ranks: BTreeSet::new(),
        }
    }

    /// Changes the number of places. Places above a smaller number stay until their end.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.max_leaving = limit / 8 + 8;
    }

    /// Returns the number of places in use, without those that give way.
    pub fn len(&self) -> usize {
        self.places.len() - self.leaving
    }

    /// Returns the number of places in use, with those that give way.
    pub fn occupied(&self) -> usize {
        self.places.len()
    }

    /// Returns whether a place gives way.
    pub fn is_leaving(&self, id: PlaceId) -> bool {
        self.places.get(&id).is_some_and(|place| place.use_ == PlaceUse::Leaving)
    }

    /// Returns whether no place is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether a newcomer would need the place of another one.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Gives `owner` a busy place. `progress` returns when a busy place had progress last; it
    /// is called only if no place is idle.
    pub fn admit(&mut self, owner: O, progress: impl Fn(PlaceId) -> Instant) -> Admission {
        if !self.is_full() {
            return Admission::Free(self.insert(owner));
        }
        match self.give_way(owner, progress) {
            Some(victim) => Admission::Replaces { place: self.insert(owner), victim },
            None => Admission::Full,
        }
    }

    /// Gives `owner` a busy place without a look at the limit.
    pub fn insert(&mut self, owner: O) -> PlaceId {
        self.last_id += 1;
        let id = PlaceId(self.last_id);
        self.places.insert(id, Place { owner, use_: PlaceUse::Busy });
        self.change_owner(owner, |places| _ = places.busy.insert(id));
        id
    }

    /// Chooses the place that gives way to a newcomer of `owner`. The caller closes what holds
    /// it, and releases it then.
    pub fn give_way(&mut self, owner: O, progress: impl Fn(PlaceId) -> Instant) -> Option<Victim> {
        if self.leaving >= self.max_leaving {
            return None;
        }
        let idle = self.oldest_idle();
        let place = idle.or_else(|| self.stalest_busy(owner, progress))?;
        self.change_use(place, PlaceUse::Leaving);
        Some(Victim { place, was_idle: idle.is_some() })
    }

    fn oldest_idle(&self) -> Option<PlaceId> {
        let (_, _, owner) = self.idle_ranks.last()?;
        self.owners.get(owner)?.idle.first().map(|(_, id)| *id)
    }

    fn stalest_busy(&self, newcomer: O, progress: impl Fn(PlaceId) -> Instant) -> Option<PlaceId> {
        let (count, holder) = self.ranks.last()?;
        let own = self.owners.get(&newcomer).map_or(0, OwnerPlaces::count);
        if *count < own + 2 {
            return None;
        }
        self.owners.get(holder)?.busy.iter().copied().min_by_key(|id| (progress(*id), *id))
    }

    /// Records that nothing is lost from `since` on if this place gives way.
    pub fn set_idle(&mut self, id: PlaceId, since: Instant) {
        self.change_use(id, PlaceUse::Idle(since));
    }

    /// Records that something is under way at this place. Returns `false` if it gives way
    /// already.
    pub fn set_busy(&mut self, id: PlaceId) -> bool {
        self.change_use(id, PlaceUse::Busy);
        self.places.get(&id).is_some_and(|place| place.use_ == PlaceUse::Busy)
    }

    /// Returns the idle places.
    pub fn idle(&self) -> Vec<PlaceId> {
        self.owners.values().flat_map(|o| o.idle.iter().map(|(_, id)| *id)).collect()
    }

    /// Moves a place to another owner, when its true owner is known.
    pub fn set_owner(&mut self, id: PlaceId, owner: O) {
        let Some(place) = self.places.get_mut(&id) else { return };
        if place.use_ == PlaceUse::Leaving || place.owner == owner {
            return;
        }
        let (use_, before) = (place.use_, std::mem::replace(&mut place.owner, owner));
        self.change_owner(before, |places| remove(places, id, use_));
        self.change_owner(owner, |places| add(places, id, use_));
    }

    /// Gives a place back.
    pub fn release(&mut self, id: PlaceId) {
        let Some(place) = self.places.remove(&id) else { return };
        match place.use_ {
            PlaceUse::Leaving => self.leaving -= 1,
            use_ => self.change_owner(place.owner, |places| remove(places, id, use_)),
        }
    }

    fn change_use(&mut self, id: PlaceId, new: PlaceUse) {
        let Some(place) = self.places.get_mut(&id) else { return };
        if place.use_ == PlaceUse::Leaving || place.use_ == new {
            return;
        }
        let (owner, old) = (place.owner, std::mem::replace(&mut place.use_, new));
        if new == PlaceUse::Leaving {
            self.leaving += 1;
        }
        self.change_owner(owner, |places| {
            remove(places, id, old);
            add(places, id, new);
        });
    }

    /// Changes the places of an owner, and its ranks with them.
    fn change_owner(&mut self, owner: O, change: impl FnOnce(&mut OwnerPlaces)) {
        let places = self.owners.entry(owner).or_default();
        let rank = |places: &OwnerPlaces| {
            let oldest = places.idle.first().map(|(since, _)| Reverse(*since));
            (places.count(), oldest)
        };
        let (count, oldest) = rank(places);
        self.ranks.remove(&(count, owner));
        if let Some(oldest) = oldest {
            self.idle_ranks.remove(&(count, oldest, owner));
        }
        change(places);
        let (count, oldest) = rank(places);
        if count == 0 {
            self.owners.remove(&owner);
            return;
        }
        self.ranks.insert((count, owner));
        if let Some(oldest) = oldest {
            self.idle_ranks.insert((count, oldest, owner));
        }
    }
}

fn add(places: &mut OwnerPlaces, id: PlaceId, use_: PlaceUse) {
    match use_ {
        PlaceUse::Busy => _ = places.busy.insert(id),
        PlaceUse::Idle(since) => _ = places.idle.insert((since, id)),
        PlaceUse::Leaving => {}
    }
}

fn remove(places: &mut OwnerPlaces, id: PlaceId, use_: PlaceUse) {
    match use_ {
        PlaceUse::Busy => _ = places.busy.remove(&id),
        PlaceUse::Idle(since) => _ = places.idle.remove(&(since, id)),
        PlaceUse::Leaving => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// Takes a place for `owner` where one is free.
    #[track_caller]
    fn take(shares: &mut Shares<u8>, owner: u8) -> PlaceId {
        match shares.admit(owner, |_| Instant::ZERO) {
            Admission::Free(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn full(limit: usize, owner: u8) -> (Shares<u8>, Vec<PlaceId>) {
        let mut shares = Shares::new(limit);
        let places = (0..limit).map(|_| take(&mut shares, owner)).collect();
        (shares, places)
    }

    #[test]
    fn one_owner_may_hold_everything_while_there_is_room() {
        let (shares, places) = full(100, 1);
        assert_eq!((shares.len(), places.len(), shares.is_full()), (100, 100, true));
    }

    #[test]
    fn the_oldest_idle_place_of_the_largest_owner_gives_way() {
        let (mut shares, large) = full(5, 1);
        shares.release(large[0]);
        let small = take(&mut shares, 2);
        // Idle for longer, but its owner holds less.
        shares.set_idle(small, at(1));
        shares.set_idle(large[2], at(9));
        shares.set_idle(large[3], at(8));
        let admission = shares.admit(3, |_| panic!("an idle place is there"));
        let Admission::Replaces { victim, .. } = admission else { panic!("{admission:?}") };
        assert_eq!(victim, Victim { place: large[3], was_idle: true });
        assert!(!shares.set_busy(victim.place), "it gives way already");
        shares.release(victim.place);
        assert_eq!(shares.len(), 5);
    }

    #[test]
    fn among_equal_owners_the_oldest_idle_place_gives_way() {
        let mut shares = Shares::new(3);
        let places = [9, 1, 5].map(|owner| take(&mut shares, owner));
        for (place, since) in places.into_iter().zip([7, 3, 5]) {
            shares.set_idle(place, at(since));
        }
        let victims: Vec<PlaceId> =
            (0..3).map(|_| shares.give_way(2, |_| Instant::ZERO).unwrap().place).collect();
        assert_eq!(victims, [places[1], places[2], places[0]]);
    }

    #[test]
    fn a_busy_place_gives_way_only_to_an_owner_that_holds_less() {
        let (mut shares, places) = full(4, 1);
        let progress = |id| if id == places[2] { at(1) } else { at(5) };
        assert_eq!(shares.admit(1, progress), Admission::Full, "its own owner holds most");
        let Admission::Replaces { place, victim } = shares.admit(2, progress) else {
            panic!("refused")
        };
        assert_eq!(victim.place, places[2], "the one without progress for longest");
        assert!(!victim.was_idle);
        shares.release(victim.place);
        let Admission::Replaces { victim, .. } = shares.admit(2, progress) else {
            panic!("refused")
        };
        shares.release(victim.place);
        assert_eq!(shares.admit(2, progress), Admission::Full, "both hold the same");
        shares.release(place);
        assert!(matches!(shares.admit(2, progress), Admission::Free(_)));
    }

    #[test]
    fn places_that_give_way_are_bounded_until_they_are_released() {
        let (mut shares, places) = full(16, 1);
        for place in &places {
            shares.set_idle(*place, at(0));
        }
        let mut victims = Vec::new();
        while let Admission::Replaces { victim, .. } = shares.admit(2, |_| at(0)) {
            victims.push(victim);
        }
        assert_eq!(victims.len(), 16 / 8 + 8);
        assert_eq!(shares.len(), 16);
        shares.release(victims[0].place);
        assert!(matches!(shares.admit(2, |_| at(0)), Admission::Replaces { .. }));
    }

    #[test]
    fn a_place_moves_to_the_owner_that_is_found_later() {
        let (mut shares, places) = full(3, 1);
        shares.set_idle(places[0], at(1));
        shares.set_owner(places[0], 2);
        shares.set_owner(places[1], 2);
        shares.set_idle(places[2], at(0));
        // Owner 2 holds two now, one of them idle.
        let victim = shares.give_way(3, |_| at(0));
        assert_eq!(victim.map(|v| v.place), Some(places[0]));
        shares.set_owner(places[0], 1);
        for place in places {
            shares.release(place);
        }
        assert!(shares.is_empty() && shares.owners.is_empty() && shares.ranks.is_empty());
    }

    #[test]
    fn owners_are_addresses_and_networks() {
        let of = |text: &str| AddressOwner::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    /// What a place is in the model.
    #[derive(Clone, Copy, PartialEq)]
    struct Modelled {
        id: PlaceId,
        owner: u8,
        idle: Option<Instant>,
        progress: Instant,
        leaving: bool,
    }

    /// A list that is searched as a whole at each step.
    #[derive(Default)]
    struct Model(Vec<Modelled>);

    impl Model {
        fn present(&self) -> impl Iterator<Item = &Modelled> {
            self.0.iter().filter(|p| !p.leaving)
        }

        fn count(&self, owner: u8) -> usize {
            self.present().filter(|p| p.owner == owner).count()
        }

        /// Returns the places that may give way to a newcomer of `owner`.
        fn candidates(&self, owner: u8) -> Vec<PlaceId> {
            let best = |list: Vec<&Modelled>, time: fn(&Modelled) -> Instant| {
                let most = list.iter().map(|p| self.count(p.owner)).max().unwrap_or(0);
                let largest: Vec<_> =
                    list.into_iter().filter(|p| self.count(p.owner) == most).collect();
                (most, largest.iter().map(|p| (time(p), p.id, p.owner)).collect::<Vec<_>>())
            };
            let idle: Vec<_> = self.present().filter(|p| p.idle.is_some()).collect();
            if !idle.is_empty() {
                let (_, list) = best(idle, |p| p.idle.unwrap_or_default());
                let oldest = list.iter().map(|(time, ..)| *time).min();
                return list.iter().filter(|p| Some(p.0) == oldest).map(|p| p.1).collect();
            }
            let (most, list) = best(self.present().collect(), |p| p.progress);
            if most < self.count(owner) + 2 {
                return Vec::new();
            }
            // Of each owner that holds most, the one without progress for longest.
            let stalest = |owner| list.iter().filter(|p| p.2 == owner).map(|p| p.0).min();
            list.iter().filter(|p| Some(p.0) == stalest(p.2)).map(|p| p.1).collect()
        }
    }

    #[test]
    fn every_choice_is_that_of_the_plain_rules() {
        for seed in 1..=200u64 {
            let mut numbers = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |below: u64| {
                numbers ^= numbers << 13;
                numbers ^= numbers >> 7;
                numbers ^= numbers << 17;
                numbers % below
            };
            let limit = usize::try_from(1 + next(12)).unwrap();
            let owners = 1 + next(4);
            let (mut shares, mut model) = (Shares::new(limit), Model::default());
            for step in 0..400 {
                let now = at(step);
                let which = usize::try_from(next(64)).unwrap() % model.0.len().max(1);
                match next(6) {
                    0..=2 => {
                        let owner = u8::try_from(next(owners)).unwrap();
                        let candidates = model.candidates(owner);
                        let leaving = model.0.iter().filter(|p| p.leaving).count();
                        let room = model.present().count() < limit;
                        let progress = |id| model.0.iter().find(|p| p.id == id).unwrap().progress;
                        let admission = shares.admit(owner, progress);
                        let id = match admission {
                            Admission::Free(id) => {
                                assert!(room, "seed {seed} step {step}");
                                Some(id)
                            }
                            Admission::Replaces { place, victim } => {
                                let (victim, was_idle) = (victim.place, victim.was_idle);
                                assert!(!room && candidates.contains(&victim), "seed {seed}");
                                let idle = model.present().any(|p| p.idle.is_some());
                                assert_eq!(was_idle, idle, "seed {seed}");
                                let victim = model.0.iter_mut().find(|p| p.id == victim).unwrap();
                                victim.leaving = true;
                                Some(place)
                            }
                            Admission::Full => {
                                let bounded = leaving >= limit / 8 + 8;
                                assert!(!room && (candidates.is_empty() || bounded), "seed {seed}");
                                None
                            }
                        };
                        model.0.extend(id.map(|id| Modelled {
                            id,
                            owner,
                            idle: None,
                            progress: now,
                            leaving: false,
                        }));
                    }
                    _ if model.0.is_empty() => {}
                    3 => {
                        let place = &mut model.0[which];
                        place.idle = (!place.leaving).then_some(now);
                        shares.set_idle(place.id, now);
                    }
                    4 => {
                        let place = &mut model.0[which];
                        (place.idle, place.progress) = (None, now);
                        assert_eq!(shares.set_busy(place.id), !place.leaving);
                    }
                    _ => shares.release(model.0.remove(which).id),
                }
                assert_eq!(shares.len(), model.present().count());
                assert!(shares.len() <= limit && shares.places.len() == model.0.len());
            }
            for place in model.0 {
                shares.release(place.id);
            }
            assert!(shares.is_empty() && shares.owners.is_empty(), "seed {seed}");
            assert!(shares.ranks.is_empty() && shares.idle_ranks.is_empty(), "seed {seed}");
        }
    }
}
