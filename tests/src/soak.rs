//! A soak: containers of every runtime come, are entered and go all the while, and so does the daemon. Nobody gets
//! what is forbidden, what is allowed always works, and in the end nothing is left.
//!
//! A seed decides what each thread does, not how the threads meet.

mod random;
mod record;
mod worker;

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    random::Random,
    record::{Count, Escape, Record},
    worker::{Shared, Worker},
};
use crate::{
    harness::{
        Container, Context, Lockc, Runtime,
        context::Amounts,
        fixture::{SERVICE_ACCOUNT, TOKEN},
        holdings::{Holdings, TIDY, mappings, resident, settled},
        process::wait_for,
        say,
        steady::{Loop, rename_layout},
    },
    sys::bpf,
};

const USAGE: &str = "usage: lockc-tests soak --minutes N [--seed S]";
/// Least number of threads that start containers; more on a machine with more processors.
const WORKERS: usize = 2;
/// More than there are threads.
const STREAMS: u64 = 1000;
/// Longest time between two moments in which nothing happens and everything is counted.
const ROUND: Duration = Duration::from_secs(90);
/// Growth of the daemon's memory that is not a leak, in KiB.
const ALLOWANCE: u64 = 4096;
/// Levels that forbid what the loops try, and how long those rest in between: there is other work to do.
const LOOPS: [&str; 2] = ["restricted", "baseline"];
const REST: Duration = Duration::from_millis(25);
const RANDOM_ADDRESSES: &str = "/proc/sys/kernel/randomize_va_space";
const CONDUCTOR: &str = "conductor";

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let (minutes, seed) = parse(args)?;
    let context = Context::new(None, Amounts::SMALL, false)?;
    let runtimes: Vec<_> = context.every_runtime().iter().map(|it| it.name).collect();
    say(format_args!("soak: {minutes} min, seed {seed}, runtimes {}", runtimes.join(", ")));
    // The guests of the tests have addresses that stay, for they are emulated.
    fs::write(RANDOM_ADDRESSES, "2").context(RANDOM_ADDRESSES)?;
    attack_works(&context).context("with lockc off")?;
    let before = bpf::count_objects().context("count programs, maps and links")?;
    let lockc = context.start_lockc(&context.config())?;
    let record = Record::new(lockc.directory());
    let mut soak = Soak::new(&context, lockc, Shared::new(&context, record), seed)?;
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let result = soak.rounds(end);
    let Soak { shared: Shared { record, .. }, lockc, .. } = soak;
    if let Err(error) = result.and_then(|()| end_without_rest(lockc, &before)) {
        record.wrong(CONDUCTOR, &error);
    }
    let (is_well, line) = record.summary(minutes, seed);
    say(format_args!("{line}"));
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn parse(args: &[String]) -> Result<(u64, u64)> {
    let (mut minutes, mut seed) = (None, 1);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"))?;
        let number = value.parse().with_context(|| format!("{arg}: no number: {value}"))?;
        match arg.as_str() {
            "--minutes" => minutes = Some(number),
            "--seed" => seed = number,
            _ => bail!("no option {arg}\n{USAGE}"),
        }
    }
    let minutes = minutes.context(USAGE)?;
    ensure!((1..=100_000).contains(&minutes), "--minutes must be from 1 to 100000");
    Ok((minutes, seed))
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(WORKERS, |count| count.get().max(WORKERS))
}

/// Without lockc the loop reads what it tries to read, and so does who is brought in.
fn attack_works(context: &Context) -> Result<()> {
    let (read, _) = Loop::start(context, context.runtime(), "restricted", REST)?.end()?;
    ensure!(read > 0, "the loop cannot read the token");
    for runtime in context.every_runtime() {
        let id = context.id("off");
        let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
        let container = Container::new(runtime, &id, &bundle)?;
        container.start()?;
        let said = container.exec(&["/bin/probe", "read", &format!("{SERVICE_ACCOUNT}/token")])?;
        ensure!(said.stdout == format!("read OK {TOKEN}\n"), "{}: {said}", runtime.name);
    }
    Ok(())
}

/// The daemon ends cleanly, and `unload` leaves the kernel with what it had before lockc came.
fn end_without_rest(mut lockc: Lockc, before: &[usize; 3]) -> Result<()> {
    lockc.check_alive()?;
    lockc.stop()?;
    Lockc::unload()?;
    let mut last = *before;
    wait_for("the end of lockc's programs, maps and links", TIDY, || {
        last = bpf::count_objects()?;
        Ok(last.iter().zip(before).all(|(now, before)| now <= before).then_some(()))
    })
    .with_context(|| format!("before {before:?}, after {last:?}"))
}

struct Soak<'c> {
    context: &'c Context,
    shared: Shared,
    lockc: Lockc,
    seed: u64,
    random: Random,
    /// What there is when nothing is under way, and the daemon's memory then.
    idle: Holdings,
    memory: u64,
    /// The configuration that is in force.
    variant: u64,
}

impl<'c> Soak<'c> {
    fn new(context: &'c Context, lockc: Lockc, shared: Shared, seed: u64) -> Result<Self> {
        shared.daemon_changes();
        let idle = settled(&lockc, None)?;
        let memory = resident(lockc.pid()?)?;
        let random = Random::new(seed, 0);
        Ok(Self { context, shared, lockc, seed, random, idle, memory, variant: 0 })
    }

    fn rounds(&mut self, end: Instant) -> Result<()> {
        for round in 1_u64.. {
            let now = Instant::now();
            if now >= end || self.shared.record.is_over() {
                break;
            }
            self.round(round, end.min(now + ROUND)).with_context(|| format!("round {round}"))?;
        }
        Ok(())
    }

    /// All of it at once, then nothing, and a look at what is left.
    fn round(&mut self, round: u64, until: Instant) -> Result<()> {
        let mut loops = Vec::new();
        for level in LOOPS {
            let runtimes = &self.shared.runtimes;
            let runtime: &Runtime = self.random.one_of(runtimes);
            self.shared.record.note(CONDUCTOR, format_args!("{} loops ({level})", runtime.name));
            let looping = Loop::start(self.context, runtime, level, REST)?;
            loops.push((runtime.name, level, looping));
        }
        let Self { shared, lockc, random, variant, .. } = self;
        let (shared, seed, context) = (&*shared, self.seed, self.context);
        std::thread::scope(|scope| {
            for number in 1..=workers() as u64 {
                let random = Random::new(seed, round * STREAMS + number);
                scope.spawn(move || Worker::new(shared, number, random).work(until));
            }
            let mut conductor = Conductor { context, shared, lockc, random, variant };
            if let Err(error) = conductor.conduct(until) {
                shared.record.wrong(CONDUCTOR, &error);
            }
        });
        let ended: Vec<_> =
            loops.into_iter().map(|(name, level, looping)| (name, level, looping.end())).collect();
        for (runtime, level, counts) in ended {
            let (read, refused) = counts.with_context(|| format!("loop of {runtime}, {level}"))?;
            let what = format!("loop of {runtime}, {level}: {read} read, {refused} refused");
            ensure!(read == 0, Escape(what));
            ensure!(refused > 100, what);
        }
        if self.shared.record.is_over() {
            return Ok(());
        }
        self.quiet()
    }

    /// Nothing happens: everything must be as it was at first.
    fn quiet(&mut self) -> Result<()> {
        self.shared.record.note(CONDUCTOR, format_args!("everything must be as before"));
        if self.variant != 0 {
            self.lockc.reload(&self.context.config())?;
            self.variant = 0;
        }
        self.lockc.check_alive()?;
        settled(&self.lockc, Some(&self.idle))?;
        let pid = self.lockc.pid()?;
        let memory = resident(pid)?;
        let grown = memory.saturating_sub(self.memory);
        ensure!(
            grown <= ALLOWANCE,
            "the daemon has grown from {} by {grown} KiB; what is resident:\n{}",
            self.memory,
            mappings(pid)?
        );
        let record = &self.shared.record;
        say(format_args!(
            "soak: {} starts, {} execs, {} restarts of the daemon so far; nothing left, {memory} KiB",
            record.get(Count::Starts),
            record.get(Count::Execs),
            record.restarts(),
        ));
        Ok(())
    }
}

/// Who changes the configuration, and ends and starts the daemon.
struct Conductor<'a> {
    context: &'a Context,
    shared: &'a Shared,
    lockc: &'a mut Lockc,
    random: &'a mut Random,
    variant: &'a mut u64,
}

impl Conductor<'_> {
    fn conduct(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until && !self.shared.record.is_over() {
            let record = &self.shared.record;
            match self.random.below(10) {
                0..5 => self.reload()?,
                5..7 => {
                    record.note(CONDUCTOR, format_args!("SIGKILL to the daemon"));
                    record.count(Count::DaemonKills);
                    self.shared.daemon_changes();
                    self.lockc.kill();
                    self.restart(until)?;
                }
                7..9 => {
                    record.note(CONDUCTOR, format_args!("SIGTERM to the daemon"));
                    record.count(Count::Stops);
                    self.shared.daemon_changes();
                    self.lockc.stop()?;
                    self.restart(until)?;
                }
                _ => {
                    record.note(CONDUCTOR, format_args!("another layout"));
                    record.count(Count::Upgrades);
                    self.shared.daemon_changes();
                    self.lockc.kill();
                    rename_layout()?;
                    self.restart(until)?;
                }
            }
            self.pause(until);
        }
        self.lockc.check_alive()
    }

    /// Lets the others work for a while, with what there is of the daemon.
    fn pause(&mut self, until: Instant) {
        let end = until.min(Instant::now() + Duration::from_millis(self.random.below(20_000)));
        while Instant::now() < end && !self.shared.record.is_over() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn restart(&mut self, until: Instant) -> Result<()> {
        // Half of the time at once.
        if self.random.below(2) == 0 {
            self.pause(until);
        }
        let start = Instant::now();
        self.lockc.restart()?;
        self.shared.daemon_changes();
        let took = start.elapsed().as_secs_f64();
        self.shared.record.note(CONDUCTOR, format_args!("a daemon is ready: {took:.1} s"));
        Ok(())
    }

    /// Another configuration, by which everybody may do what they might before.
    fn reload(&mut self) -> Result<()> {
        let variant = *self.variant + 1 + self.random.below(5);
        self.shared.record.note(CONDUCTOR, format_args!("configuration {variant}"));
        let paths: Vec<_> = (0..=variant % 7).map(|n| format!("\"/opt/{variant}/{n}\"")).collect();
        let config = self.context.config();
        let rules = format!("[policy.baseline.paths]\ndeny = [{}]\n", paths.join(", "));
        self.lockc.reload(&format!("{config}{rules}"))?;
        *self.variant = variant;
        self.shared.record.count(Count::Reloads);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn options() {
        let parse = |line: &str| {
            parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok()
        };
        assert_eq!(parse("--minutes 5 --seed 7"), Some((5, 7)));
        assert_eq!(parse("--minutes 5"), Some((5, 1)));
        for wrong in ["", "--minutes", "--minutes 0", "--minutes x", "--seed 1", "--hours 1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
