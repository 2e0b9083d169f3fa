"""Runs the rsyslog examples: events written to a file, which is replaced, come out of the server's file,
all of them once and with every key, over a restart, too. In the tools' root, as root, without a network."""

import json, os, pathlib, re, shutil, subprocess, sys, time

EXAMPLES = pathlib.Path(sys.argv[1])
# A test of lockc holds these against its events.
KEYS = [
    "schema", "id", "time", "verdict", "operation", "container", "policy", "mode", "path", "path_cut",
    "address", "family", "detail", "pid", "tid", "comm", "runtime", "why", "engine", "name", "image",
]
EVENTS = pathlib.Path("/run/lockc/events.jsonl")
WORK = pathlib.Path("/tmp/rsyslog")


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def configure(name):
    """The example with the names of this machine, and where rsyslog keeps what."""
    text = (EXAMPLES / name).read_text()
    text = text.replace("/etc/ssl/certs/ca-certificates.crt", f"{WORK}/ca.pem")
    text = text.replace("/etc/ssl/private/SERVER.key", f"{WORK}/key.pem")
    text = text.replace("/etc/ssl/SERVER.crt", f"{WORK}/cert.pem").replace("SERVER", "localhost")
    place = WORK / name.removesuffix(".conf")
    place.mkdir()
    file = WORK / name
    # As in Debian's rsyslog.conf, which reads its directory last.
    file.write_text(f'module(load="imuxsock" SysSock.Use="off")\nglobal(workDirectory="{place}")\n{text}')
    said = run("rsyslogd", "-N1", "-f", str(file))
    if re.search("error|warning", said.replace("End of config validation run. Bye.", "")):
        sys.exit(f"{name}: {said}")
    return file


def start(file):
    log = open(file.with_suffix(".log"), "a")
    words = ["rsyslogd", "-n", "-iNONE", "-f", str(file)]
    return subprocess.Popen(words, stdout=log, stderr=log)


def stop(daemon):
    daemon.terminate()
    daemon.wait(120)


def event(number):
    """One with every key; the longest that there are have some ten thousand bytes."""
    texts = {key: f"{key} {number} \\xff \u00fc \"" for key in KEYS}
    long = "/" + "x" * 20000 if number % 10 == 9 else f"/srv/{number}"
    numbers = {"schema": 1, "pid": number, "tid": number, "detail": number, "path_cut": True}
    return texts | numbers | {"id": str(number), "path": long}


def write(numbers):
    with open(EVENTS, "a") as file:
        for number in numbers:
            file.write(json.dumps(event(number), ensure_ascii=False, separators=(",", ":")) + "\n")


def received():
    lines = [line for file in pathlib.Path("/var/log/lockc").glob("*") for line in file.open()]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for(count, client):
    deadline = time.monotonic() + 120
    while len(received()) < count:
        if time.monotonic() > deadline or client.poll() is not None:
            logs = [log.read_text() for log in WORK.glob("*.log")]
            sys.exit(f"{len(received())} of {count} events arrived\n{''.join(logs)}")
        time.sleep(0.05)


shutil.rmtree(WORK, ignore_errors=True)
for directory in (WORK, EVENTS.parent, pathlib.Path("/var/log/lockc")):
    directory.mkdir(parents=True, exist_ok=True)
run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2",
    "-keyout", f"{WORK}/key.pem", "-out", f"{WORK}/cert.pem")
shutil.copy(WORK / "cert.pem", WORK / "ca.pem")

server = start(configure("server.conf"))
file = configure("lockc.conf")
write(range(10))
client = start(file)
wait_for(10, client)
write(range(10, 20))
EVENTS.rename(EVENTS.with_suffix(".jsonl.1"))
write(range(20, 30))
wait_for(30, client)
stop(client)
write(range(30, 40))
client = start(file)
wait_for(40, client)
stop(client)
stop(server)

events = sorted(received(), key=lambda event: int(event["id"]))
for number, got in enumerate(events):
    host = got.pop("host", None)
    if not host or got != event(number):
        sys.exit(f"event {number} became {json.dumps(got)[:1000]}, host {host}")
if len(events) != 40:
    sys.exit(f"40 events became {len(events)}")
