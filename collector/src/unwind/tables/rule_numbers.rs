//! Numbers of rules in the kernel's table, which the rows of all files share.
//!
//! A row has 16 bits for the number of its rule. All files of a Debian have 4,445 rules between them, but one
//! hostile file can have as many as there are numbers. So a number belongs to a rule only as long as resident
//! rows name it. Then it waits out a grace period, since a running program may still have it in hand, and can
//! be given to another rule. The program's cache of found rules needs nothing more: it is keyed by the version of
//! a process's mappings, and rows leave the kernel only together with the versions that led to them.

use std::collections::VecDeque;

use profiler_bpf::arch::x86_64::rule::Rule;
use rustc_hash::FxHashMap;

use super::{epochs::Epoch, write::Write};
use crate::unwind::RuleSet;

#[derive(Debug)]
pub(super) struct RuleNumbers {
    /// Slots by rule number.
    slots: Vec<Slot>,
    numbers: FxHashMap<Rule, u16>,
    /// Numbers without users in their grace period, ordered by epoch.
    retired: VecDeque<(Epoch, u16)>,
    /// Numbers that can be reassigned, the longest unused first. An entry is valid only while
    /// [`Slot::is_idle`] is set in its slot.
    idle: VecDeque<u16>,
    idle_count: usize,
    used_count: usize,
    unwritten: Vec<u16>,
    numbers_max: usize,
    reused: u64,
}

#[derive(Debug)]
struct Slot {
    rule: Rule,
    /// Number of resident contents that use it.
    users: u32,
    /// The epoch in which its last use ended.
    retired: Epoch,
    is_idle: bool,
    /// Whether the kernel has this rule under this number, or will after the next writes.
    is_written: bool,
}

impl RuleNumbers {
    /// Contains only the two rules of every set, which keep their numbers; at most `numbers_max`
    /// numbers.
    pub(super) fn new(numbers_max: usize) -> Self {
        let mut numbers = Self {
            slots: Vec::new(),
            numbers: FxHashMap::default(),
            retired: VecDeque::new(),
            idle: VecDeque::new(),
            idle_count: 0,
            used_count: 0,
            unwritten: Vec::new(),
            numbers_max,
            reused: 0,
        };
        for rule in RuleSet::new().as_slice() {
            numbers.push(*rule);
        }
        numbers
    }

    /// Number of rules that can get a number.
    pub(super) fn available(&self) -> usize {
        self.numbers_max - self.slots.len() + self.idle_count
    }

    /// Number of numbers in their grace period.
    pub(super) fn retired(&self) -> usize {
        self.slots.len() - self.used_count - self.idle_count
    }

    /// Assigns each rule a number and counts a use of it. `None`, without a change, if there are
    /// not enough numbers.
    pub(super) fn acquire(&mut self, rules: &[Rule]) -> Option<Vec<u16>> {
        let (mut new_count, mut revived_count) = (0, 0);
        for rule in rules {
            match self.numbers.get(rule) {
                Some(number) if self.slots[usize::from(*number)].is_idle => revived_count += 1,
                Some(_) => {}
                None => new_count += 1,
            }
        }
        if new_count + revived_count > self.available() {
            return None;
        }
        // First the rules that have a number, so that no other rule takes it.
        for rule in rules {
            if let Some(number) = self.numbers.get(rule).copied() {
                self.add_user(number);
            }
        }
        let numbers = rules.iter().map(|rule| match self.numbers.get(rule) {
            Some(number) => *number,
            None => self.assign(*rule),
        });
        Some(numbers.collect())
    }

    fn add_user(&mut self, number: u16) {
        let slot = &mut self.slots[usize::from(number)];
        slot.users += 1;
        if slot.users == 1 {
            self.used_count += 1;
            self.idle_count -= usize::from(slot.is_idle);
            slot.is_idle = false;
        }
        if !slot.is_written {
            slot.is_written = true;
            self.unwritten.push(number);
        }
    }

    /// Assigns a rule a number of its own. One is available: [`acquire`](Self::acquire) has counted
    /// them.
    fn assign(&mut self, rule: Rule) -> u16 {
        if self.slots.len() < self.numbers_max {
            return self.push(rule);
        }
        while let Some(number) = self.idle.pop_front() {
            let slot = &mut self.slots[usize::from(number)];
            if slot.is_idle {
                self.numbers.remove(&slot.rule);
                slot.rule = rule;
                slot.is_written = false;
                self.numbers.insert(rule, number);
                self.reused += 1;
                self.add_user(number);
                return number;
            }
        }
        debug_assert!(false, "a number was counted that is not there");
        RuleSet::UNSUPPORTED
    }

    fn push(&mut self, rule: Rule) -> u16 {
        let number = self.slots.len() as u16;
        self.slots.push(Slot {
            rule,
            users: 0,
            retired: Epoch::default(),
            is_idle: false,
            is_written: false,
        });
        self.numbers.insert(rule, number);
        self.add_user(number);
        number
    }

    /// Ends one use of each number.
    pub(super) fn release(&mut self, numbers: &[u16], epoch: Epoch) {
        for number in numbers {
            let slot = &mut self.slots[usize::from(*number)];
            slot.users -= 1;
            if slot.users == 0 {
                self.used_count -= 1;
                slot.retired = epoch;
                self.retired.push_back((epoch, *number));
            }
        }
    }

    /// Ends the grace periods of numbers released up to `epoch`.
    pub(super) fn end_grace(&mut self, epoch: Epoch) {
        while let Some((retired, number)) = self.retired.pop_front_if(|(since, _)| *since <= epoch)
        {
            let slot = &mut self.slots[usize::from(number)];
            // The number may have been used and released again since.
            if slot.users == 0 && slot.retired == retired && !slot.is_idle {
                slot.is_idle = true;
                self.idle_count += 1;
                self.idle.push_back(number);
            }
        }
    }

    /// Marks all rules as unknown to the kernel: each must be written again.
    pub(super) fn forget_written(&mut self) {
        self.unwritten.clear();
        for (slot, number) in self.slots.iter_mut().zip(0..=u16::MAX) {
            slot.is_written = slot.users > 0;
            if slot.is_written {
                self.unwritten.push(number);
            }
        }
    }

    /// The rule of a number.
    pub(super) fn get(&self, number: u16) -> Option<&Rule> {
        self.slots.get(usize::from(number)).map(|slot| &slot.rule)
    }

    /// Whether the rule has a number.
    pub(super) fn has(&self, rule: &Rule) -> bool {
        self.numbers.contains_key(rule)
    }

    /// Number of resident contents that use a number.
    pub(super) fn users(&self, number: u16) -> u32 {
        self.slots
            .get(usize::from(number))
            .map_or(0, |slot| slot.users)
    }

    /// The rules that the kernel does not have yet.
    pub(super) fn take_writes(&mut self) -> impl Iterator<Item = Write> {
        let slots = &self.slots;
        self.unwritten.drain(..).map(|number| Write::Rule {
            number,
            rule: slots[usize::from(number)].rule,
        })
    }

    /// The maximum number of rules.
    pub(super) fn capacity(&self) -> usize {
        self.numbers_max
    }

    /// Number of rules in use by resident rows.
    pub(super) fn used(&self) -> usize {
        self.used_count
    }

    /// Numbers reassigned to another rule, since the start.
    pub(super) fn reused(&self) -> u64 {
        self.reused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(from: i32, count: i32) -> Vec<Rule> {
        let offsets = from..from + count;
        offsets.map(|offset| Rule::at_register(7, offset)).collect()
    }

    /// Check that a number is reassigned only after its grace period, that a rule which is used
    /// again before keeps its number, and that each change is written to the kernel.
    #[test]
    fn numbers_are_reused_after_their_grace_period() {
        let epoch = Epoch::of;
        let mut numbers = RuleNumbers::new(1 << 16);
        assert_eq!(numbers.take_writes().count(), 2);
        let all = numbers.acquire(&rules(0, 65_534)).unwrap();
        assert_eq!((all[0], all[65_533]), (2, u16::MAX));
        assert_eq!(numbers.take_writes().count(), 65_534);
        assert_eq!((numbers.available(), numbers.used()), (0, 65_536));
        assert_eq!(numbers.acquire(&rules(65_533, 2)), None);
        assert_eq!(numbers.acquire(&rules(5, 1)), Some(vec![7]));

        numbers.release(&all, epoch(1));
        assert_eq!((numbers.available(), numbers.used()), (0, 3));
        assert_eq!(numbers.acquire(&rules(100_000, 1)), None);
        assert_eq!(numbers.acquire(&rules(9, 1)), Some(vec![11]));
        numbers.release(&[11], epoch(2));
        numbers.end_grace(epoch(1));
        assert_eq!(numbers.available(), 65_532);
        assert_eq!(numbers.get(11), Some(&Rule::at_register(7, 9)));
        numbers.end_grace(epoch(2));
        assert_eq!(numbers.available(), 65_533);
        assert_eq!(numbers.take_writes().count(), 0);

        // The first two were released first.
        let new = numbers.acquire(&rules(100_000, 2)).unwrap();
        assert_eq!(new, [2, 3]);
        let writes: Vec<Write> = numbers.take_writes().collect();
        let expected = |number, offset| Write::Rule {
            number,
            rule: Rule::at_register(7, offset),
        };
        assert_eq!(writes, [expected(2, 100_000), expected(3, 100_001)]);
        // A rule that lost its number gets another one; a rule that kept it needs no write.
        let again = numbers.acquire(&rules(0, 1)).unwrap();
        assert_eq!(
            (again[0], numbers.acquire(&rules(3, 1))),
            (4, Some(vec![5]))
        );
        assert_eq!(numbers.take_writes().count(), 1);
        assert_eq!(numbers.reused(), 3);
    }
}
