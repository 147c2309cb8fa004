//! From a history that has no order to the few operations that show it.
//!
//! First the history is cut at the earliest answer with which it has no order any more: every longer piece has
//! none either. Then operations are made uncertain, many at once and then ever fewer, as long as there is still
//! no order: what is uncertain may have happened or not, so that only fewer demands are left. What must stay
//! certain is the answer.

use super::{
    At, History, Object, Op,
    search::{Found, search},
};

/// So many configurations are spent on each smaller history; more only make the answer shorter.
const BUDGET: usize = 3_000;
/// So many smaller histories are tried.
const TRIES: usize = 500;

/// A history without an order that is as small as can be found, from one without an order.
pub(super) fn smallest<W: Object>(history: &History<W>, budget: usize) -> History<W> {
    let cut = first_impossible(history, budget);
    // What only looks makes the others matter: the fewer of those are left the fewer ways there are to try.
    let cut = fewest(cut, budget, |op| !op.what.may_change());
    let cut = fewest(cut, budget, |op| op.what.may_change());
    only_what_matters(cut)
}

/// As few certain operations of those as can be.
fn fewest<W: Object>(mut cut: History<W>, budget: usize, of: impl Fn(&Op<W>) -> bool) -> History<W> {
    let mut left: Vec<usize> = (0..cut.ops.len()).filter(|n| cut.ops[*n].is_certain() && of(&cut.ops[*n])).collect();
    let (mut size, mut tries) = (left.len(), 0);
    while size > 0 && tries < TRIES {
        let mut from = 0;
        while from < left.len() && tries < TRIES {
            let until = (from + size).min(left.len());
            let mut fewer = cut.clone();
            left[from..until].iter().for_each(|n| fewer.ops[*n].returned = None);
            tries += 1;
            if search(&fewer, BUDGET.min(budget)) == Found::None {
                cut = fewer;
                left.drain(from..until);
            } else {
                from = until;
            }
        }
        size /= 2;
    }
    cut
}

/// Up to the earliest answer with which there is no order.
fn first_impossible<W: Object>(history: &History<W>, budget: usize) -> History<W> {
    let mut answers: Vec<At> = history.ops.iter().filter(|op| op.is_certain()).filter_map(|op| op.returned).collect();
    answers.sort_unstable();
    // The first that is possible is before the first; all of it is not.
    let (mut possible, mut impossible) = (0, answers.len());
    while impossible - possible > 1 {
        let middle = possible.midpoint(impossible);
        match search(&until(history, answers[middle - 1]), budget) {
            Found::None => impossible = middle,
            Found::Order | Found::TooMuch => possible = middle,
        }
    }
    match impossible.checked_sub(1).and_then(|last| answers.get(last)) {
        Some(last) => until(history, *last),
        None => history.clone(),
    }
}

/// As it was known at this moment.
fn until<W: Object>(history: &History<W>, moment: At) -> History<W> {
    let mut cut = history.clone();
    cut.ops.retain(|op| op.invoked <= moment);
    for op in &mut cut.ops {
        op.returned = op.returned.filter(|at| *at <= moment);
    }
    cut
}

/// The certain operations, and of the others those about the same numbers.
fn only_what_matters<W: Object>(mut history: History<W>) -> History<W> {
    let about: Vec<_> = history.ops.iter().filter(|op| op.is_certain()).filter_map(|op| op.what.about()).collect();
    history.ops.retain(|op| {
        op.is_certain() || (op.what.may_change() && op.what.about().is_some_and(|token| about.contains(&token)))
    });
    history.ops.sort_by_key(|op| (op.invoked, op.returned));
    history
}
