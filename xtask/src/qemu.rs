//! Runs a guest in QEMU and brings home what it said.
//!
//! Four channels lead out of a guest: virtio ports for the command's stdout,
//! stderr and exit code, and the serial console for the kernel. QEMU gets the
//! first two as sockets in place of its own stdin and stdout.

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{command, kernel::Architecture};

/// A guest that is ready to start.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) architecture: Architecture,
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: &'a Path,
    /// Added to the kernel's command line.
    pub(crate) append: &'a str,
    /// A raw disk image, used without changing it.
    pub(crate) disks: &'a [PathBuf],
    /// MiB
    pub(crate) memory: u32,
    pub(crate) timeout: Duration,
    /// Show the console as it comes.
    pub(crate) console: bool,
    pub(crate) processors: u8,
    /// One processor, whose clock advances by a nanosecond with each instruction.
    pub(crate) counted: bool,
    /// A directory for this run's files.
    pub(crate) dir: &'a Path,
}

impl Guest<'_> {
    /// Boots the guest and gives back its command's exit code; a guest that does
    /// not get that far is an error with the end of its console.
    pub(crate) fn run(
        &self,
        out: &mut (dyn Write + Send),
        err: &mut (dyn Write + Send),
    ) -> Result<u8> {
        let console = self.dir.join("console");
        let code = self.dir.join("code");
        let (out_here, out_there) = UnixStream::pair().context("cannot make a socket pair")?;
        let (err_here, err_there) = UnixStream::pair().context("cannot make a socket pair")?;
        let mut child = self
            .command(&console, &code)
            .stdin(Stdio::from(OwnedFd::from(out_there)))
            .stdout(Stdio::from(OwnedFd::from(err_there)))
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run qemu")?;
        let said = child.stderr.take();
        let (status, said) = thread::scope(|scope| {
            scope.spawn(move || copy(&out_here, out));
            scope.spawn(move || copy(&err_here, err));
            let said = scope.spawn(move || {
                let mut text = String::new();
                // What cannot be read is not shown; QEMU's status counts.
                let _ = said.map(|mut from| from.read_to_string(&mut text));
                text
            });
            let status = self.wait(&mut child, &console);
            (status, said.join().unwrap_or_default())
        });
        let status = status?;
        let tail = || tail(&console);
        let Some(status) = status else {
            bail!("the guest did not finish within {} s{}", self.timeout.as_secs(), tail());
        };
        if !status.success() {
            bail!("qemu: {status}\n{}{}", said.trim_end(), tail());
        }
        if let Some(line) = kernel_trouble(&console) {
            bail!("the guest's kernel failed: {line}{}", tail());
        }
        match fs::read_to_string(&code).unwrap_or_default().trim().parse() {
            Ok(code) => Ok(code),
            Err(_) => bail!("the guest stopped before its command did{}", tail()),
        }
    }

    fn command(&self, console: &Path, code: &Path) -> Command {
        let (program, machine, cpu, serial) = match self.architecture {
            // Benchmarks count what the kernel does on a processor as it is.
            Architecture::X86_64 if self.counted => ("qemu-system-x86_64", "pc", "max", "ttyS0"),
            // Each of these ends a translated block, or makes the emulator's address cache be
            // refilled more often: a sixth of the time of a run, for nothing that lockc touches.
            Architecture::X86_64 => (
                "qemu-system-x86_64",
                "pc",
                "max,la57=off,smap=off,smep=off,pku=off,pks=off,pcid=off",
                "ttyS0",
            ),
            // The architected algorithm for pointer authentication is very slow to emulate.
            Architecture::Aarch64 => {
                ("qemu-system-aarch64", "virt", "max,pauth-impdef=on", "ttyAMA0")
            }
        };
        // A guest that outlived a killed xtask would run on unseen.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]);
        let quiet = if self.console { "" } else { " quiet" };
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-machine", machine, "-cpu", cpu])
            .args(self.processors(program))
            .args(["-m", &self.memory.to_string()])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .arg("-append")
            // Under emulation the lock-up detectors find the host's load, not the kernel's bugs.
            .arg(format!(
                "console={serial}{quiet} panic=-1 oops=panic nowatchdog{} {}",
                self.quicker(),
                self.append
            ))
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", escaped(console)))
            .args(["-serial", "chardev:console"])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-chardev",
                "socket,id=out,fd=0",
                "-device",
                "virtserialport,chardev=out,name=out",
            ])
            .args([
                "-chardev",
                "socket,id=err,fd=1",
                "-device",
                "virtserialport,chardev=err,name=err",
            ])
            .arg("-chardev")
            .arg(format!("file,id=code,path={}", escaped(code)))
            .args(["-device", "virtserialport,chardev=code,name=code"])
            .args(["-object", "rng-random,id=rng,filename=/dev/urandom"])
            .args(["-device", "virtio-rng-pci,rng=rng"]);
        for disk in self.disks {
            command.arg("-drive").arg(format!(
                "if=virtio,format=raw,snapshot=on,cache=unsafe,file={}",
                escaped(disk)
            ));
        }
        command
    }

    /// Boot parameters that make emulation quicker, for guests whose instructions nobody counts.
    ///
    /// The emulator translates code anew for every address at which it is seen: with random ones, all of each
    /// program at each start, which takes twice as long as to run it. A string instruction is a loop that is
    /// translated and left at every step; without these flags the kernel copies and clears with plain moves.
    fn quicker(&self) -> &'static str {
        match self.architecture {
            _ if self.counted => "",
            Architecture::X86_64 => " norandmaps clearcpuid=erms,rep_good",
            Architecture::Aarch64 => " norandmaps",
        }
    }

    fn processors(&self, program: &str) -> Vec<String> {
        if self.counted {
            // Idle time does not pass: the clock goes on to the next timer.
            let counted = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"];
            return counted.map(str::to_owned).into();
        }
        let processors = self.processors.to_string();
        vec!["-accel".into(), accelerator(program).into(), "-smp".into(), processors]
    }

    /// Waits for QEMU; `None` if it had to be killed at the deadline.
    fn wait(&self, child: &mut Child, console: &Path) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + self.timeout;
        let mut shown = Follow::new(console);
        loop {
            let status = child.try_wait().context("cannot wait for qemu");
            if self.console {
                shown.forward();
            }
            match status {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                Ok(None) => {
                    child.kill().context("cannot kill qemu")?;
                    child.wait().context("cannot wait for qemu")?;
                    return Ok(None);
                }
                Ok(Some(status)) => return Ok(Some(status)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A thread per virtual CPU, or one for both.
///
/// An old QEMU can translate code while another of its CPUs writes to it, and
/// keeps running what was there before. The kernel patches its code all the time:
/// seen with 7.2 under our tests as `Oops: int3` at a static key. Since 8.1 the
/// translator locks the page first (`tb_lock_page0`); with one thread nothing
/// races. Guests are no slower for it while two of them share two cores.
fn accelerator(program: &str) -> &'static str {
    let text = command::output(Command::new(program).arg("--version"), "asking qemu");
    let version = text.ok().and_then(|text| {
        let version = text.split_once("version ")?.1;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
    });
    if version >= Some((8, 1)) { "tcg,thread=multi" } else { "tcg,thread=single" }
}

/// QEMU wants commas in option values doubled.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Copies until QEMU closes its end. When nobody wants to read on (a closed
/// pipe), the rest is thrown away, so that the guest does not block.
fn copy(mut from: &UnixStream, to: &mut (dyn Write + Send)) {
    let mut buffer = [0; 16 * 1024];
    let mut wanted = true;
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 {
            break;
        }
        wanted = wanted && to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_ok();
    }
    // The other end is gone; there is nothing to tell it.
    let _ = from.shutdown(Shutdown::Both);
}

/// Follows a growing file.
#[derive(Debug)]
struct Follow<'a> {
    path: &'a Path,
    file: Option<fs::File>,
}

impl<'a> Follow<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, file: None }
    }

    fn forward(&mut self) {
        if self.file.is_none() {
            self.file = fs::File::open(self.path).ok();
        }
        if let Some(file) = &mut self.file {
            // Showing the console is a service; losing some of it changes no result.
            let _ = io::copy(file, &mut io::stderr());
        }
    }
}

/// A line that says the kernel itself is broken.
fn kernel_trouble(console: &Path) -> Option<String> {
    const SIGNS: [&str; 5] =
        ["Kernel panic", "BUG: ", "Oops: ", "general protection fault", "Internal error: "];
    let text = fs::read(console).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .find(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .map(|line| line.trim().to_owned())
}

fn tail(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(40)..].join("\n");
    if last.trim().is_empty() {
        String::new()
    } else {
        format!("\nthe end of its console:\n{last}")
    }
}
