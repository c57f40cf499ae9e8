//! Work in tasks: what is added up within one depends on shapes alone, so no result depends on threads. What only
//! shares out, and adds nothing up, may go by the number of threads.
//!
//! Waking a sleeping thread takes some 10 to 50 us, as long as much of our work does, and an update hands out
//! work every few hundred. So whoever waits here looks for work instead of sleeping, and a thread that took
//! some goes on looking for a while.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::level::multiversion;

/// Below this many floating-point operations a call stays on one thread: handing work out costs
/// about what one core needs for half of it.
const SPLIT_FROM: usize = 400_000;

/// How long a thread looks for more work before it sleeps. Longer than what an update does on one thread
/// between two calls.
const LINGER: Duration = Duration::from_micros(500);

/// How long it leaves other programs no turn meanwhile.
const SPIN: Duration = Duration::from_micros(200);

/// Whether a call of so many floating-point operations is worth more than this thread, and there are more.
pub(crate) fn pays(flops: usize) -> bool {
    flops >= SPLIT_FROM && rayon::current_num_threads() > 1
}

thread_local! {
    /// Whether this thread waits for the results of a call.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Applies `f` to every task and returns the results in order; in parallel where it pays.
///
/// `flops` are the floating-point operations of all tasks, or what takes as long.
pub fn map_tasks<I: Send, T: Send>(tasks: Vec<I>, flops: usize, f: impl Fn(I) -> T + Sync + Send) -> Vec<T> {
    if tasks.len() < 2 || !pays(flops) {
        return tasks.into_iter().map(f).collect();
    }
    let mut results: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    let left = &AtomicUsize::new(tasks.len());
    let f = &f;
    rayon::scope(|scope| {
        let home = rayon::current_thread_index();
        for (task, result) in tasks.into_iter().zip(&mut results) {
            scope.spawn(move |_| {
                counted(left, home, || *result = Some(f(task)));
            });
        }
        wait(left);
    });
    results.into_iter().map(|result| result.expect("every task was done")).collect()
}

/// Does `here` on this thread and `there` on whichever has time for it; one after the other where handing `there`
/// out would not pay.
///
/// `flops` are the floating-point operations of `there`, or what takes as long.
pub fn beside<A, B: Send>(
    flops: usize,
    here: impl FnOnce() -> A,
    there: impl FnOnce() -> B + Send,
) -> (A, B) {
    if !pays(flops) {
        return (here(), there());
    }
    let mut result = None;
    let left = &AtomicUsize::new(1);
    let done_here = rayon::in_place_scope(|scope| {
        let home = rayon::current_thread_index();
        let result = &mut result;
        scope.spawn(move |_| counted(left, home, || *result = Some(there())));
        let done_here = here();
        wait(left);
        done_here
    });
    (done_here, result.expect("the task was done"))
}

/// Does a task that thread `home` handed out, and counts it as done.
fn counted(left: &AtomicUsize, home: Option<usize>, task: impl FnOnce()) {
    let done = Done(left);
    task();
    drop(done);
    if rayon::current_thread_index() != home {
        linger();
    }
}

/// Looks for work until no task is left.
fn wait(left: &AtomicUsize) {
    let waited = WAITS.replace(true);
    let mut idle = Idle::new();
    while left.load(Ordering::Acquire) > 0 {
        idle.look();
    }
    WAITS.set(waited);
}

/// Counts a task as done, also one that panics.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A thread with nothing of its own to do.
struct Idle(Instant);

impl Idle {
    fn new() -> Self {
        Self(Instant::now())
    }

    /// For how long there has been no work.
    fn time(&self) -> Duration {
        self.0.elapsed()
    }

    /// Does a piece of work if there is any. If there was none for long, other programs' threads go first.
    fn look(&mut self) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            *self = Self::new();
        } else if self.time() < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Keeps this thread awake, once the present task is done, until there was no work for [`LINGER`].
fn linger() {
    thread_local!(static LINGERS: Arc<AtomicBool> = Arc::default());
    let lingers = LINGERS.with(Arc::clone);
    if lingers.swap(true, Ordering::Relaxed) {
        return;
    }
    let thread = rayon::current_thread_index();
    rayon::spawn(move || {
        stay(thread);
        lingers.store(false, Ordering::Relaxed);
    });
}

/// Looks for work until there was none for [`LINGER`], if this is the thread that was to; says how often it looked.
///
/// A thread that waits for results may take this for work, perhaps its own, from a task of somebody else's call; it
/// does not stay.
fn stay(thread: Option<usize>) -> usize {
    let (mut idle, mut looks) = (Idle::new(), 0);
    while !WAITS.get() && rayon::current_thread_index() == thread && idle.time() < LINGER {
        idle.look();
        looks += 1;
    }
    looks
}

/// The sum of equally long parts, in their order.
pub(crate) fn add_parts(parts: impl IntoIterator<Item = Vec<f32>>, len: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| vec![0.0; len]);
    parts.for_each(|part| add(&mut sum, &part));
    sum
}

multiversion! {
    /// `sum += part`.
    pub(crate) fn add(sum: &mut [f32], part: &[f32]) = add_body
}

#[inline(always)]
fn add_body<const FMA: bool>(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_threads<T: Send>(threads: usize, body: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(body)
    }

    fn squares(count: u64) -> Vec<u64> {
        map_tasks((0..count).collect(), SPLIT_FROM, |i| i * i)
    }

    #[test]
    fn results_come_in_the_order_of_tasks_whether_threads_are_awake_or_asleep() {
        let expected: Vec<_> = (0..40).map(|i| i * i).collect();
        for threads in [1, 2, 5] {
            on_threads(threads, || {
                for call in 0..200 {
                    assert_eq!(squares(40), expected);
                    if call % 50 == 0 {
                        std::thread::sleep(4 * LINGER);
                    }
                }
            });
        }
    }

    #[test]
    fn a_task_may_hand_out_work_itself() {
        let sums =
            on_threads(2, || map_tasks((1..9).collect(), SPLIT_FROM, |i| squares(i).iter().sum::<u64>()));
        assert_eq!(sums, [0, 1, 5, 14, 30, 55, 91, 140]);
    }

    #[test]
    fn two_things_beside_each_other_give_what_they_give_in_turn() {
        for threads in [1, 2] {
            for flops in [0, SPLIT_FROM] {
                let squares =
                    |n: usize| map_tasks((0..n).collect(), flops, |i| i * i).into_iter().sum::<usize>();
                let both = on_threads(threads, || beside(flops, || squares(4), || squares(5).to_string()));
                assert_eq!(both, (14, "30".to_string()));
            }
        }
    }

    #[test]
    fn a_thread_that_waits_or_is_another_one_does_not_stay() {
        let thread = rayon::current_thread_index();
        assert!(stay(thread) > 0);
        assert_eq!(stay(Some(thread.map_or(0, |number| number + 1))), 0);
        WAITS.set(true);
        assert_eq!(stay(thread), 0);
        WAITS.set(false);
    }

    #[test]
    fn a_thread_that_has_its_results_no_longer_counts_as_waiting() {
        on_threads(2, || {
            let inner = |i| {
                let before = WAITS.get();
                (squares(i), WAITS.get() == before)
            };
            for _ in 0..100 {
                assert!(map_tasks((1..9).collect(), SPLIT_FROM, inner).iter().all(|&(_, kept)| kept));
                assert!(!WAITS.get());
            }
        });
    }

    #[test]
    #[should_panic(expected = "task 7")]
    fn a_task_that_panics_ends_the_call() {
        on_threads(2, || map_tasks((0..20).collect(), SPLIT_FROM, |i| assert!(i != 7, "task {i}")));
    }
}
