"""What the scripts beside it share: they build, start a resolver and forwarders on loopback, ask, and look at the costs.

All that is started here ends with the script, whatever ends that.
"""

import ctypes
import json
import os
import pathlib
import platform
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CODE = HERE.parent.parent
# The name in the resolver's certificate.
NAME = "resolver.test"
TICK = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))
# How long whatever is started has until it answers.
PATIENCE = 15
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failure(Exception):
    """It could not be measured."""


def build():
    """The paths of dns-tool, which DNS_TOOL may name, and of the bench's own programs."""
    named = os.environ.get("DNS_TOOL")
    if not named:
        cargo(CODE)
    cargo(HERE)
    target = os.environ.get("CARGO_TARGET_DIR")
    binaries = pathlib.Path(target or HERE / "target", "release")
    own = pathlib.Path(target or CODE / "target", "release", "dns-tool")
    programs = {
        "dns-tool": pathlib.Path(named).resolve() if named else own,
        "bare": binaries / "bare",
        "load": binaries / "load",
        "resolver": binaries / "resolver",
    }
    for path in programs.values():
        if not os.access(path, os.X_OK):
            raise Failure(f"{path} is no program")
    return programs


def cargo(folder):
    """A release build of what is in that folder."""
    try:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=folder, check=True)
    except FileNotFoundError as error:
        raise Failure("cargo is missing: install Rust") from error
    except subprocess.CalledProcessError as error:
        raise Failure(f"{folder} cannot be built") from error


def end_with_parent():
    """In what is started: it ends when the script does, even if that is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """A program that runs until it is stopped."""

    def __init__(self, command, log, folder, environment=None, talks=False):
        self.log = log
        talk = subprocess.PIPE if talks else None
        with open(log, "ab") as said:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=talk or subprocess.DEVNULL,
                stdout=talk or said,
                stderr=said,
                preexec_fn=end_with_parent,
                text=True,
            )

    def lives(self):
        return self.process.poll() is None

    def stop(self):
        """Ends it, with patience at first."""
        if self.lives():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for talk in (self.process.stdin, self.process.stdout):
            if talk:
                talk.close()

    def said(self):
        """The last of what it said."""
        return pathlib.Path(self.log).read_text(errors="replace")[-2000:]


class Resolver:
    """The resolver of the bench; it is asked for its counts, and ends with the block."""

    def __init__(self, programs, folder, options=()):
        self.authority = pathlib.Path(folder, "authority.pem")
        command = [programs["resolver"], "--name", NAME, "--authority", self.authority, *options]
        self.program = Program(command, pathlib.Path(folder, "resolver.log"), folder, talks=True)
        line = self.program.process.stdout.readline()
        if not line:
            raise Failure(f"the resolver does not start: {self.program.said()}")
        said = json.loads(line)
        self.port = int(said["address"].rsplit(":", 1)[1])
        self.pin = said["pin"]

    def counts(self):
        self.program.process.stdin.write("\n")
        self.program.process.stdin.flush()
        return json.loads(self.program.process.stdout.readline())

    def pid(self):
        return self.program.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.stop()


def free_port():
    """A port of 127.0.0.1 that nobody has, for TCP or UDP, below those that the system gives to clients."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
            return port
        except OSError:
            continue
    raise Failure("found no free port")


def ask(programs, port, *options):
    """What comes of a load."""
    command = [str(programs["load"]), "--target", f"127.0.0.1:{port}", *map(str, options)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=end_with_parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    result["processor_seconds"] = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return result


def teach(programs, port, names, *options):
    """Has a forwarder know so many names."""
    for _ in range(3):
        result = ask(programs, port, *options, "--outstanding", 10, "--names", names, "--each-once")
        if result["good"] == names:
            return
    raise Failure(f"not all names were answered: {result}")


def family(pids):
    """These processes and all that descend from them."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat(int(entry))
            if fields:
                parents[int(entry)] = int(fields[1])
    found = set(pids)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def stat(pid):
    """The fields of /proc/PID/stat from the third on; nothing where it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rsplit(")", 1)[1].split()


def processor_time(pids):
    """Seconds of these processes and all that descend from them: in all, to the nanosecond, and in user mode, in ticks."""
    total = user = 0
    for pid in family(pids):
        fields = stat(pid)
        try:
            total += time.clock_gettime(processor_clock(pid))
        except OSError:
            continue
        if fields:
            # utime, and of its children that ended cutime and cstime.
            user += (int(fields[11]) + int(fields[13])) / TICK
            total += (int(fields[13]) + int(fields[14])) / TICK
    return total, user


def processor_clock(pid):
    """The clock that counts what all threads of a process had, also those that ended: what clock_getcpuclockid says."""
    return (~pid << 3) | 2


def most_memory(pids):
    """Octets that these processes, and all that descend from them, had at most in memory."""
    most = 0
    for pid in family(pids):
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        most += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return most


class Forwarder:
    """A forwarder in front of a resolver; it ends with the block."""

    def __init__(self, peer, programs, folder, resolver, name=NAME, authority=None, **wishes):
        self.peer = peer
        self.programs = programs
        self.resolver = resolver
        self.port = free_port()
        self.folder = pathlib.Path(folder)
        self.started = []
        upstream = Upstream(resolver.port, name, authority or resolver.authority, resolver.pin)
        try:
            for number, command in enumerate(peer.commands(self.folder, self.port, upstream, programs, **wishes)):
                log = self.folder / f"{peer.name}-{number}.log"
                self.started.append(Program(command, log, self.folder, peer.environment))
        except BaseException:
            self.stop()
            raise

    def pids(self):
        return [program.process.pid for program in self.started]

    def lives(self):
        return all(program.lives() for program in self.started)

    def cost(self, *options):
        """What comes of a load, and what that cost: microseconds per good answer, memory, what the resolver counted."""
        counted = self.resolver.counts()
        beside, _ = processor_time([self.resolver.pid()])
        total, user = processor_time(self.pids())
        result = ask(self.programs, self.port, *options)
        total_after, user_after = processor_time(self.pids())
        beside_after, _ = processor_time([self.resolver.pid()])
        counted_after = self.resolver.counts()
        result["resolver"] = {key: value - counted[key] for key, value in counted_after.items() if key != "open"}
        result["memory"] = most_memory(self.pids())
        good = max(result["good"], 1)
        result["micros"] = (total_after - total) * 1e6 / good
        result["user_micros"] = (user_after - user) * 1e6 / good
        # What was on the same processors: that it is little says that the forwarder is what was measured.
        result["resolver_micros"] = (beside_after - beside) * 1e6 / good
        result["load_micros"] = result.pop("processor_seconds") * 1e6 / good
        return result

    def wait_until_it_answers(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if not self.lives():
                break
            if ask(self.programs, self.port, "--queries", 1, "--timeout", 0.3)["good"]:
                return
            time.sleep(0.05)
        raise Failure(f"{self.peer.name} does not answer: {self.said()}")

    def said(self):
        return "\n".join(program.said() for program in self.started)

    def stop(self):
        for program in self.started:
            program.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Upstream:
    """What a forwarder is told of the resolver."""

    def __init__(self, port, name, authority, pin):
        self.port = port
        self.name = name
        self.authority = authority
        self.pin = pin


def machine():
    """The machine in words."""
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{CORES} {'core' if CORES == 1 else 'cores'}, {model}, {platform.system()} {platform.release()}"


def medians(options):
    """What the figures are, in words."""
    if options.rounds == 1:
        return f"one round of {options.seconds:g} s"
    return f"medians of {options.rounds} rounds of {options.seconds:g} s"


def work_folder():
    """A folder that vanishes at the end."""
    return tempfile.TemporaryDirectory(prefix="dns-tool-bench-")


def guarded(main):
    """Runs main, and says in a line why it could not be measured, where it could not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Failure as failure:
        print(f"{pathlib.Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
