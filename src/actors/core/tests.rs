//! The framework's promises, on paused time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Handler, Message, ResponseFuture};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What happened to the probe, in order; shared with the test.
type Log = Rc<RefCell<Vec<String>>>;

struct Probe {
    log: Log,
    memory: u32,
    panic_on_start: u32,
    held: Vec<Reply<Result<u32, ActorGone>>>,
}

impl_supervised!(Probe, "probe", |this| {
    this.memory = 0;
    this.held.clear();
});

impl Actor for Probe {
    type Context = Ctx<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.log.borrow_mut().push(format!("started with {}", self.memory));
        if self.panic_on_start > 0 {
            self.panic_on_start -= 1;
            panic!("no start");
        }
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Add(u32);
#[derive(Message)]
#[rtype(result = "()")]
struct PanicNow;
#[derive(Message)]
#[rtype(result = "()")]
struct PanicInEffect;
#[derive(Message)]
#[rtype(result = "()")]
struct FailNow;
#[derive(Message)]
#[rtype(result = "()")]
struct StopNow;
#[derive(Message)]
#[rtype(result = "Result<u32, ActorGone>")]
struct Hold;

impl Handler<Add> for Probe {
    type Result = u32;
    fn handle(&mut self, Add(n): Add, _: &mut Ctx<Self>) -> u32 {
        self.memory += n;
        self.memory
    }
}
impl Handler<PanicNow> for Probe {
    type Result = ();
    fn handle(&mut self, _: PanicNow, _: &mut Ctx<Self>) {
        panic!("handler");
    }
}
impl Handler<PanicInEffect> for Probe {
    type Result = ();
    fn handle(&mut self, _: PanicInEffect, ctx: &mut Ctx<Self>) {
        ctx.effect(async { panic!("effect") }, |_, (): (), _| ());
    }
}
impl Handler<FailNow> for Probe {
    type Result = ();
    fn handle(&mut self, _: FailNow, ctx: &mut Ctx<Self>) {
        ctx.fail("on purpose");
    }
}
impl Handler<StopNow> for Probe {
    type Result = ();
    fn handle(&mut self, _: StopNow, ctx: &mut Ctx<Self>) {
        actix::ActorContext::stop(ctx);
    }
}
impl Handler<Hold> for Probe {
    type Result = ResponseFuture<Result<u32, ActorGone>>;
    fn handle(&mut self, _: Hold, _: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        self.held.push(reply);
        answer
    }
}

fn probe(log: &Log) -> Probe {
    Probe { log: log.clone(), memory: 0, panic_on_start: 0, held: Vec::new() }
}

fn three_tries() -> Backoff {
    Backoff::new(SECOND, 10 * SECOND, 600 * SECOND, 3)
}

/// Starts a probe whose end lands in the log.
fn start(probe: Probe) -> actix::Addr<Probe> {
    let log = probe.log.clone();
    supervise(probe, three_tries(), move |end| log.borrow_mut().push(format!("{end:?}")))
}

async fn local<F: Future>(test: impl FnOnce(Log) -> F) {
    LocalSet::new().run_until(test(Log::default())).await;
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_panic_restarts_on_the_same_address_with_its_mail() {
    local(|log| async move {
        let addr = start(probe(&log));
        assert_eq!(ask(&addr, Add(5)).await, Ok(5));
        let before = Instant::now();
        // The poisoned message is lost and its asker told; mail behind it is kept.
        let (poisoned, kept) = tokio::join!(ask(&addr, PanicNow), ask(&addr, Add(1)));
        assert_eq!(poisoned, Err(ActorGone { actor: "probe" }));
        assert_eq!(kept, Ok(1), "memory was forgotten, mail was not");
        assert!(before.elapsed() >= SECOND, "a restart waits for its backoff");

        tell(&addr, PanicInEffect);
        assert_eq!(ask(&addr, Add(2)).await, Ok(3), "handled before the effect ran");
        tokio::time::sleep(3 * SECOND).await;
        assert_eq!(ask(&addr, Add(2)).await, Ok(2));

        tell(&addr, FailNow);
        assert_eq!(ask(&addr, Add(7)).await, Ok(7));
        assert_eq!(log.borrow().len(), 4, "{log:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_starting_is_retried_too() {
    local(|log| async move {
        let addr = start(Probe { panic_on_start: 2, ..probe(&log) });
        assert_eq!(ask(&addr, Add(1)).await, Ok(1));
        assert_eq!(log.borrow().len(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_its_tries_and_says_so() {
    local(|log| async move {
        let restarts = metrics::restarts("probe", "panicked");
        let addr = start(Probe { panic_on_start: 9, ..probe(&log) });
        assert_eq!(ask(&addr, Add(1)).await, Err(ActorGone { actor: "probe" }));
        assert_eq!(log.borrow().last().unwrap(), r#"GaveUp { reason: "no start" }"#);
        assert!(metrics::restarts("probe", "panicked") >= restarts + 4);
        assert!(!addr.connected());
        tell(&addr, PanicNow); // counted, not a panic
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_the_end() {
    local(|log| async move {
        let addr = start(probe(&log));
        assert_eq!(ask(&addr, StopNow).await, Ok(()));
        assert_eq!(ask(&addr, Add(1)).await, Err(ActorGone { actor: "probe" }));
        assert_eq!(*log.borrow(), ["started with 0", "Done"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_reply_answers_its_asker() {
    local(|log| async move {
        let addr = start(probe(&log));
        let (held, ()) = tokio::join!(ask(&addr, Hold), async {
            tell(&addr, FailNow);
        });
        assert_eq!(held, Ok(Err(ActorGone { actor: "probe" })));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_counted_while_it_waits() {
    struct Idle;
    impl_supervised!(Idle, "idle", |_this| ());
    impl Actor for Idle {
        type Context = Ctx<Self>;
    }
    impl Handler<StopNow> for Idle {
        type Result = ();
        fn handle(&mut self, _: StopNow, ctx: &mut Ctx<Self>) {
            actix::ActorContext::stop(ctx);
        }
    }
    local(|_| async move {
        let addr = supervise(Idle, three_tries(), |_| ());
        let depth = metrics::of_actor("idle").depth.clone();
        tell(&addr, StopNow);
        tell(&addr, StopNow); // lost with the mailbox
        assert_eq!(depth.get(), 2);
        tokio::time::sleep(SECOND).await;
        assert_eq!(depth.get(), 0);
        let handled = metrics::of_message("idle", std::any::type_name::<StopNow>());
        assert_eq!(handled.handle.get_sample_count(), 1);
        assert_eq!(metrics::of_actor("idle").alive.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn admission_refuses_the_one_too_many() {
    let edge = Admission::new("publishes", "--most", 1);
    let first = edge.enter().unwrap();
    assert_eq!(
        edge.enter().unwrap_err().to_string(),
        "1 publishes are already waiting (--most): try again later"
    );
    drop(first);
    assert!(edge.enter().is_ok());
}
