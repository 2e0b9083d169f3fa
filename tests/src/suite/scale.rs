//! Many containers, many tasks and many starts at once: all are contained, and no event costs more for that.

use std::{
    fmt, fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    harness::{
        Container, Context, Level, Runtime,
        container::DEADLINE,
        daemon::tail,
        fixture::{SERVICE_ACCOUNT, TOKEN},
        holdings::settled,
        process::wait_for,
        runner::{Daemon, Test, With},
        say,
        traffic::Traffic,
    },
    probe::open_close,
};

pub(crate) const TESTS: &[Test] = &[test("crowd", crowd), test("in-flight", in_flight)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "scale", name, daemon: Daemon::On, with: With::One, run }
}

/// How many times as long as with few containers something may take with many: what depends on their number takes
/// longer than that, and noise does not.
const GROSS: u128 = 10;
/// Of how many rounds of how many opens the quickest counts, and of how many starts.
const ROUNDS: usize = 40;
const OPENS: usize = 300;
const STARTS: usize = 3;
/// How many containers of the crowd are looked at more closely.
const SAMPLES: usize = 5;

/// What things take.
#[derive(Debug)]
struct Figures {
    host: u128,
    contained: u128,
    start: Duration,
}

impl Figures {
    fn measure(context: &Context) -> Result<Self> {
        let file = context.image().join("etc/hostname");
        let host = open_close(ROUNDS, OPENS, &file.to_string_lossy())?;
        let (rounds, opens) = (ROUNDS.to_string(), OPENS.to_string());
        let said = run(context, &["/bin/probe", "open-close", &rounds, &opens, "/etc/hostname"])?;
        let contained = said.trim_end().strip_prefix("open-close OK ").map(str::parse);
        let Some(Ok(contained)) = contained else { return Err(anyhow!("it said {said:?}")) };
        let mut start = Duration::MAX;
        for _ in 0..STARTS {
            let begin = Instant::now();
            run(context, &["/bin/true"])?;
            start = start.min(begin.elapsed());
        }
        Ok(Self { host, contained, start })
    }

    /// Fails when something takes grossly longer than it did `before`.
    fn ensure_like(&self, before: &Self) -> Result<()> {
        for (what, now, before) in [
            ("an open by the host", self.host, before.host),
            ("an open by a container", self.contained, before.contained),
            ("a start", self.start.as_nanos(), before.start.as_nanos()),
        ] {
            ensure!(now <= GROSS * before, "{what} takes {now} ns instead of {before} ns");
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, contained, start } = self;
        let start = start.as_millis();
        write!(
            out,
            "open+close by the host {host} ns, by a container {contained} ns, start {start} ms"
        )
    }
}

/// The quickest runtime, which is the last one, and takes the least memory.
fn runtime(context: &Context) -> Result<&Runtime> {
    context.runtimes().last().context("no runtime")
}

fn run(context: &Context, args: &[&str]) -> Result<String> {
    let id = context.id("figure");
    let container = Container::new(runtime(context)?, &id, &context.token_bundle(&id, args))?;
    Ok(container.run()?.success("run")?.stdout)
}

/// Does something with each of `items`, a few at a time.
fn each<T: Sync>(
    context: &Context,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let one_by_one = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..context.amounts.parallel).map(|_| scope.spawn(one_by_one)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

/// Containers with many tasks: every one of them is refused, and events cost what they did before.
fn crowd(context: &Context) -> Result<()> {
    let (count, tasks) = (context.amounts.crowd, context.amounts.tasks);
    let each_has = tasks.div_ceil(count);
    let shared = context.scratch().join("crowd");
    fs::create_dir_all(&shared)?;
    let runtime = runtime(context)?;
    let (token, threads) = (format!("{SERVICE_ACCOUNT}/token"), each_has.to_string());
    let args = ["/bin/probe", "crowd", &threads, "/shared/verdicts", &token];
    let containers = [Level::Baseline, Level::Restricted]
        .into_iter()
        .cycle()
        .take(count)
        .map(|level| {
            let id = context.id("crowd");
            let mut bundle = context.token_bundle(&id, &args);
            level.annotate(&mut bundle);
            // Namespaces of the network are what takes a kernel the longest to make.
            bundle.bind(&shared, "/shared").share("network");
            Container::new(runtime, &id, &bundle)
        })
        .collect::<Result<Vec<_>>>()?;
    context.with_lockc(|lockc| {
        // Once before, so that what is allocated for good is allocated.
        run(context, &["/bin/true"])?;
        let before = settled(lockc, None)?;
        let few = Figures::measure(context)?;
        let begin = Instant::now();
        each(context, &containers, Container::start_at_once)?;
        let verdicts = wait_for("their verdicts", DEADLINE, || {
            let said = fs::read_to_string(shared.join("verdicts")).unwrap_or_default();
            Ok((said.lines().count() == count).then_some(said))
        })?;
        let took = begin.elapsed().as_secs_f64();
        let wanted = format!("{each_has} of {each_has}");
        let wrong = verdicts.lines().filter(|said| *said != wanted).count();
        ensure!(wrong == 0, "in {wrong} of {count} containers not every task was refused");
        let counted = lockc.holdings()?.tasks.saturating_sub(before.tasks);
        ensure!(counted >= tasks as u64, "the records count {counted} tasks only");
        let many = Figures::measure(context)?;
        say(format_args!("scale: with no other container: {few}"));
        say(format_args!(
            "scale: with {count} containers and {counted} tasks, started in {took:.0} s: {many}"
        ));
        let step = count.div_ceil(SAMPLES);
        let samples: Vec<_> = containers.iter().step_by(step).collect();
        each(context, &samples, |container| {
            let said = container.exec(&["/bin/probe", "read", &token])?;
            ensure!(said.stdout.starts_with("read EPERM open"), "exec is not contained: {said}");
            let said = container.exec(&["/bin/probe", "threads", "4"])?;
            ensure!(said.stdout == "threads OK 4 threads, sum 10\n", "ordinary work: {said}");
            Ok(())
        })?;
        many.ensure_like(&few)?;
        each(context, &containers, Container::delete)?;
        settled(lockc, Some(&before)).map(drop)
    })
}

/// Starts that are under way at once are all decided about in time: what is privileged, which the default is not,
/// reads the token, and the others are refused.
fn in_flight(context: &Context) -> Result<()> {
    let count = context.amounts.in_flight;
    let runtime = runtime(context)?;
    let token = format!("{SERVICE_ACCOUNT}/token");
    let (refused, read) = ("read EPERM open\n".to_owned(), format!("read OK {TOKEN}\n"));
    let wanted = [(Level::Privileged, &read), (Level::Restricted, &refused)];
    let containers = wanted
        .into_iter()
        .cycle()
        .take(count)
        .map(|(level, wanted)| {
            let id = context.id("flight");
            let mut bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
            level.annotate(&mut bundle);
            Ok((Container::new(runtime, &id, &bundle)?, wanted))
        })
        .collect::<Result<Vec<_>>>()?;
    context.with_lockc(|lockc| {
        let before = settled(lockc, None)?;
        let traffic = Traffic::start(context.token().token());
        let begin = Instant::now();
        let running = containers
            .iter()
            .map(|(container, wanted)| Ok((container.start_running()?, *wanted)))
            .collect::<Result<Vec<_>>>()?;
        let started = begin.elapsed().as_secs_f64();
        for (running, wanted) in running {
            let output = running.finish(DEADLINE)?;
            ensure!(
                output.stdout == *wanted,
                "expected {wanted:?}: {output}; log:\n{}",
                tail(&lockc.log().unwrap_or_default(), 20)
            );
        }
        let all = begin.elapsed().as_secs_f64();
        say(format_args!(
            "scale: {count} starts made in {started:.1} s, all over after {all:.1} s"
        ));
        traffic.end()?;
        settled(lockc, Some(&before)).map(drop)
    })
}
