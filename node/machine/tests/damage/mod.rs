//! What a snapshot with a wrong bit comes to.

use wardlock_machine::Machine;

/// Restores a snapshot with each bit flipped in turn. More than an eighth of these are refused; the others are whole,
/// whatever they are, and `check` is told of each.
pub(crate) fn flip_each_bit(snapshot: &[u8], check: impl Fn(Machine)) {
    let mut refused = 0;
    for at in 0..snapshot.len() {
        for bit in 0..8 {
            let mut damaged = snapshot.to_vec();
            damaged[at] ^= 1 << bit;
            match Machine::restore(&damaged) {
                Err(_) => refused += 1,
                Ok(machine) => {
                    assert_eq!(Machine::restore(&machine.snapshot()).as_ref(), Ok(&machine));
                    check(machine);
                }
            }
        }
    }
    assert!(refused > snapshot.len(), "{refused} of {} were refused", 8 * snapshot.len());
}
