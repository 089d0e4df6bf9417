#!/usr/bin/env python3
"""Calls of the agent that fail, one at a time, in each phase of each of its lives.

After each fault the agent serves again within a limit, or has ended at its start with a
reason and status 1. Every visitor gets a response or a reset. The agent does not panic,
spin, or keep descriptors or threads. Its terminal shows its screen, or is restored.
SIGTERM ends it with status 0.

The calls are recorded in a run without faults. Their errors are in calls.txt; a call
that is not listed there fails the test. The positions of a fault depend on the number
of calls in a phase: each of the first three, then with increasing distance. The short
form has each error of each call once, and in later lives each kind of call of their
threads, with its errors in turn.

usage: faults.py [--long] [--places N] [--life NAME ...] EDGE AGENT [LIFE:PHASE:CALL:ERROR:N ...]
"""

import argparse
import collections
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

from agent import LIVES, Agent, Place
from loopback import until
from peers import Hung, Peers

HERE = os.path.dirname(os.path.abspath(__file__))

# Time until everything is served again.
AGAIN = 30
# Time during which a fault may still occur, also in other threads.
MOMENT = 0.5
# Processor time per second of an idle agent.
BUSY = 0.5

# Calls that kernels older than the named one lack.
OLD_KERNELS = {
    "5.11": ["epoll_pwait2"],
    "5.9": ["close_range"],
    "5.6": ["openat2", "pidfd_getfd"],
    "5.3": ["clone3", "pidfd_open"],
    "4.18": ["rseq"],
    "4.11": ["statx"],
    "4.6": ["preadv2", "pwritev2"],
    "4.5": ["copy_file_range"],
    "4.3": ["membarrier"],
    "3.17": ["getrandom", "memfd_create"],
    "3.15": ["renameat2"],
    # No new privileges; thread names are older and not essential.
    "3.5": ["prctl"],
}
# Of still older ones: not supported, but not needed either.
ANCIENT = ["sendmmsg", "recvmmsg", "prlimit64", "timerfd_create", "timerfd_settime"]
# Messages of a program that could not allocate essential memory.
NO_MEMORY = "memory allocation of"
MEMORY_CALLS = {"mmap", "mremap", "brk"}
# The standard library's reaction to a directory that cannot be closed. It reads one for a list
# of files. File systems do not return this error.
# for a list of files; file systems do not return it.
CLOSED_BADLY = "unexpected error during closedir"


class Row:
    def __init__(self, errors, start):
        self.never = errors == ["never"]
        self.errors, self.start = errors, start


def read_table(path):
    rows = {}
    with open(path) as file:
        for line in file:
            if line.startswith("#") or not line.strip():
                continue
            names, errors, start, _ = (part.strip() for part in line.split("|"))
            row = Row(errors.split(), start)
            if start not in ("serve", "end", ""):
                raise SystemExit(f"calls.txt: what is '{start}'?")
            for name in names.split():
                rows[name] = row
    return rows


Fault = collections.namedtuple("Fault", "life phase call error when")


def spell(fault):
    return ":".join(map(str, fault))


# A call in a trace: the thread, its name, the call, and its arguments.
CALL = re.compile(r"^(\d+)(?:<([^>]*)>)? +(\w+)\((.*)")


class Made:
    """The calls of a phase, in a run without faults."""

    def __init__(self, trace):
        threads = collections.defaultdict(collections.Counter)
        # Highest number of times that one thread makes the call.
        self.most = collections.Counter()
        # Each kind of call, by thread and purpose: its first place.
        self.kinds = {}
        with open(trace, errors="replace") as file:
            for text in file:
                if found := CALL.match(text):
                    number, thread, name, rest = found.groups()
                    threads[number][name] += 1
                    at = threads[number][name]
                    self.most[name] = max(self.most[name], at)
                    kind = (thread, name, purpose(name, rest))
                    self.kinds[kind] = min(at, self.kinds.get(kind, at))


def purpose(call, rest):
    """Returns the common part of all calls of a kind: options, files without their numbers."""
    if call in ("setsockopt", "getsockopt", "ioctl", "fcntl", "prctl", "madvise", "socket"):
        return " ".join(re.findall(r"\b[A-Z][A-Z_]{3,}\b", rest.split(" = ")[0])[:2])
    if found := re.match(r'[^"]*"([^"]*)"', rest):
        if call not in ("read", "write", "sendto", "recvfrom", "recvmsg", "getrandom"):
            return re.sub(r"\d+", "N", found[1])
    return ""


def positions(most):
    at = 1
    while at <= most:
        yield at
        at = max(at + 1, at * 3 // 2) if at >= 3 else at + 1


class Run:
    """Results of all faults, shared by the environments."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = self.unreached = 0
        self.aborted = []
        # Calls by life.
        self.reached = collections.defaultdict(set)
        self.ended = 0
        self.tried = 0
        self.jobs = collections.deque()
        self.all = 0

    def add(self, faults):
        self.jobs.extend(faults)
        self.all += len(faults)

    def tell(self, text):
        with self.lock:
            print(text, flush=True)


class Worker:
    """Injects faults one after the other, into one agent as long as it runs."""

    def __init__(self, run, place, rows):
        self.run, self.place, self.rows = run, place, rows
        self.agent = None
        self.reconnects = 0
        self.trace = place.dir + "/trace"

    def fresh(self):
        """Returns an agent that serves, without faults."""
        if self.agent is None:
            self.agent = Agent(self.place)
            if not until(AGAIN, self.agent.serves):
                raise RuntimeError("it does not serve without any fault: " + self.agent.words())
            self.settle()

    def settle(self):
        """Returns its open descriptors when it is idle."""
        self.agent.files = None
        seen = -1
        for _ in range(40):
            now = self.agent.open_files()
            if now == seen:
                break
            seen = now
            time.sleep(0.1)
        self.agent.files = seen
        self.agent.threads = self.agent.open_threads()

    def drop(self):
        if self.agent is not None:
            self.agent.kill()
            self.agent = None

    def calm(self, allowed=0, waiting=0):
        """Checks that no descriptors and no work are left of the phase."""
        agent = self.agent
        if not until(10, lambda: agent.open_files() <= agent.files + allowed):
            return f"it keeps descriptors: {agent.open_files()}, at first {agent.files}"
        if not until(10, lambda: (agent.open_threads() - agent.threads).total() <= waiting):
            return f"it keeps threads: {agent.open_threads()}, at first {agent.threads}"
        for length in (0.15, 1.0):
            before = agent.cpu()
            time.sleep(length)
            if agent.cpu() - before < BUSY * length:
                return ""
        return "it is busy with nothing"

    def verdict_of_end(self, fault):
        """Handles an agent that has ended unexpectedly."""
        status = self.agent.process.wait()
        words = self.agent.words()
        if self.known_abort(fault) and status < 0:
            self.run.aborted.append(spell(fault))
            return ""
        # Before its first line the C library prints nothing.
        begins = fault.phase == "start" and fault.when == 1 or self.is_new()
        if begins and (fault.call, status) == ("mmap", -signal.SIGSEGV):
            self.run.aborted.append(spell(fault))
            return ""
        if status < 0:
            return f"it died of signal {-status}"
        starts = fault.phase == "start" or self.is_new()
        if not starts or self.rows[fault.call].start == "serve":
            return f"it ended ({status})"
        loader = status == 127 and "error while loading shared libraries" in words
        if status != 1 and not loader:
            return f"it ended with {status}"
        if not words.strip():
            return "it ended without a word"
        self.run.ended += 1
        return ""

    def known_abort(self, fault):
        words = self.agent.words() if self.agent else ""
        if fault.call == "close" and CLOSED_BADLY in words:
            return True
        return fault.call in MEMORY_CALLS and NO_MEMORY in words

    def try_fault(self, fault):
        inject = f"inject={fault.call}:error={fault.error}:when={fault.when}"
        # A call that is not traced does not fail either.
        options = ["-e", f"trace={fault.call},execve", "-e", "signal=none", "-e", inject]
        problem = ""
        before = self.place.relay.sessions
        if fault.phase == "start":
            self.drop()
            self.agent = Agent(self.place, self.trace, options)
            self.agent.plain = True
            try:
                self.agent.act("start", self.happened())
            except Hung as hung:
                problem = f"no answer and no reset: {hung}"
            self.agent.leave_tracer()
        else:
            self.fresh()
            self.agent.plain = fault.phase == "restart"
            tracer = self.agent.attach(self.trace, options)
            try:
                self.agent.act(fault.phase, self.happened())
            except Hung as hung:
                problem = f"no answer and no reset: {hung}"
            self.agent.detach(tracer)
        if problem and fault.call == "shutdown":
            # No side was notified, because the connection is not dead.
            problem = ""
        if problem:
            return problem
        agent = self.agent
        if fault.phase == "stop":
            if not agent.ended():
                return "it does not end when it is told to"
            if agent.process.returncode != 0:
                return f"told to end it did with {agent.process.returncode}"
            return ""
        if not until(AGAIN, lambda: agent.ended() or agent.serves()):
            return "it neither serves nor ends"
        if agent.ended():
            return self.verdict_of_end(fault)
        if fault.phase == "restart" and {"Error": ""} in self.place.relay.answers:
            if not until(AGAIN, lambda: self.place.relay.sessions > before):
                return "it does not start anew, though it said so"
        if fault.phase == "start":
            self.settle()
        # A descriptor that was not closed is still open, and a call that missed an end still
        # waits for it, only here: these calls fail after they have done their work. The other
        # end of an open descriptor may be one of this test. After its first use /dev/urandom
        # stays open.
        made = len(self.injected()) + self.broken_off(fault.call)
        allowed = {"close": 2 * made, "shutdown": made, "getrandom": 1}.get(fault.call, 0)
        # A thread without a name has that of its parent.
        waiting = made if fault.call in ("close", "shutdown", "prctl") else 0
        if problem := self.calm(allowed, waiting):
            return problem
        if allowed:
            self.settle()
        if fault.phase == "reload" and not self.place.reload(agent, AGAIN):
            return "it does not read its configuration any more"
        return ""

    def stop(self):
        """Checks that it ends on a signal with 0, and restores the terminal."""
        agent = self.agent
        if agent is None:
            return ""
        told = not agent.ended()
        if told:
            agent.act("stop")
        if not agent.ended():
            problem = "later: it does not end when it is told to"
        elif told and agent.process.returncode:
            problem = f"later: told to end it did with {agent.process.returncode}"
        elif agent.terminal and not until(2, agent.leaves_it_alone):
            problem = "the terminal is not as it was"
        else:
            problem = ""
        self.drop()
        return problem

    def go(self):
        while True:
            with self.run.lock:
                if not self.run.jobs:
                    break
                fault = self.run.jobs.popleft()
                self.run.tried += 1
                if self.run.tried % 100 == 0:
                    print(f"{self.run.tried} of {self.run.all} tried", flush=True)
            if os.path.exists(self.trace):
                os.unlink(self.trace)
            try:
                problem = self.try_fault(fault)
                words = self.agent.words() if self.agent else ""
                log = self.agent.log() if self.agent else ""
                if "panicked at" in words and not self.known_abort(fault):
                    problem = "panic"
                # After a failed getrandom the library uses /dev/urandom: another fault would be
                # its second. After many reconnects the waits between attempts are long.
                self.reconnects += fault.phase == "reconnect"
                worn = fault.phase == "reconnect" and self.reconnects % 3 == 0
                fresh = fault.phase in ("start", "restart") or fault.call == "getrandom" or worn
                if not problem and (fresh or self.agent and self.agent.ended()):
                    problem = self.stop()
            except Exception:
                problem = traceback.format_exc()
                words, log = "", ""
            reached = os.path.exists(self.trace) and self.injected()
            reached = reached[0] if reached else ""
            with self.run.lock:
                if problem:
                    self.run.failed += 1
                elif reached:
                    self.run.passed += 1
                    self.run.reached[fault.life].add(fault.call)
                else:
                    self.run.unreached += 1
            if problem:
                tail = "".join(f"    {line}\n" for line in words.splitlines()[-6:] + log.splitlines()[-14:])
                self.run.tell(f"FAILED  {spell(fault)}: {problem}\n    {reached}\n{tail}")
                self.drop()
        if problem := self.stop():
            with self.run.lock:
                self.run.failed += 1
            self.run.tell(f"FAILED  place {self.place.number}: {problem}")

    def happened(self):
        """Returns whether the fault has just occurred: it must occur once, and would occur
        in each later thread."""
        at = []

        def enough():
            if not at and os.path.exists(self.trace) and self.injected():
                at.append(time.monotonic())
            return at and time.monotonic() > at[0] + MOMENT

        return enough

    def injected(self):
        with open(self.trace, errors="replace") as file:
            return [line.strip() for line in file if "(INJECTED)" in line]

    def broken_off(self, call):
        """Returns how often the tracer detached during a call that it had to fail: such a call
        fails too, with ENOSYS, and is not made."""
        with open(self.trace, errors="replace") as file:
            return sum(f" {call}(" in line and "<detached ...>" in line for line in file)

    def is_new(self):
        """Returns whether the failed call was one of the restarted program."""
        new = False
        with open(self.trace, errors="replace") as file:
            for line in file:
                if "(INJECTED)" in line:
                    return new
                new = new or "execve" in line and line.rstrip().endswith(" = 0")
        return False


def record(place, phases):
    """Runs a life without faults, to record the calls of each phase."""
    trace = place.dir + "/trace"
    quiet = ["-e", "signal=none"]
    agent = Agent(place, trace, quiet)
    try:
        agent.act("start")
        if agent.ended() or not agent.serves():
            raise SystemExit("the agent does not start:\n" + agent.words() + agent.log())
        agent.leave_tracer()
        made = {"start": Made(trace)}
        for phase in phases:
            if phase == "start":
                continue
            tracer = agent.attach(trace, quiet)
            agent.act(phase)
            agent.detach(tracer)
            made[phase] = Made(trace)
            if phase == "restart" and agent.place.relay.answers != [{"Error": ""}]:
                raise SystemExit(f"it does not start anew: {agent.place.relay.answers}")
    finally:
        agent.kill()
    return made


def old_kernel(worker, missing, name):
    """Runs a whole life on a kernel that lacks these calls."""
    run, place = worker.run, worker.place
    trace = place.dir + "/trace"
    options = ["-e", "signal=none", "-e", "trace=" + ",".join(missing)]
    options += ["-e", "inject=" + ",".join(missing) + ":error=ENOSYS"]
    agent = worker.agent = Agent(place, trace, options)
    problem = ""
    try:
        if not until(AGAIN, lambda: agent.ended() or agent.serves()) or agent.ended():
            problem = "it does not serve"
        else:
            place.work()
            if not place.reload(agent, AGAIN):
                problem = "it does not read its configuration again"
            place.relay.cut()
            if not until(AGAIN, agent.serves):
                problem = problem or "it does not come back"
            worker.settle()
            problem = problem or worker.calm()
    except Hung as hung:
        problem = f"no answer and no reset: {hung}"
    words = agent.words() + agent.log()
    problem = problem or worker.stop()
    worker.drop()
    reached = worker.injected()
    if problem:
        run.failed += 1
        print(f"FAILED  on a kernel without {name}: {problem}\n{words}")
    elif reached:
        run.passed += 1
    else:
        run.unreached += 1


class Sweep:
    """Injects all faults of one life."""

    def __init__(self, run, rows, life, places, long):
        self.run, self.rows, self.life, self.long = run, rows, life, long
        self.workers = [Worker(run, place, rows) for place in places]
        self.threads = []
        self.made = {}

    def look(self):
        """Lists the calls. One that the table lacks is a failure."""
        phases = [phase for phase in self.life.phases if self.long or phase != "idle"]
        self.made = record(self.workers[0].place, phases)
        if self.long:
            self.show()
        calls = {call for made in self.made.values() for call in made.most}
        for call in sorted(calls - set(self.rows)):
            self.run.failed += 1
            print(f"FAILED  the agent makes a call that calls.txt does not have: {call}")

    def row(self, phase, call):
        """Returns the faults for a call, if any."""
        row = self.rows.get(call)
        # The first one is the start itself.
        if row is None or row.never or (phase, call) == ("start", "execve"):
            return None
        return row

    def every(self):
        for phase, made in self.made.items():
            for call, most in sorted(made.most.items()):
                if row := self.row(phase, call):
                    for error in row.errors:
                        # Idle phases are long and repeat themselves.
                        chosen = positions(min(most, 2) if phase == "idle" else most)
                        for when in chosen:
                            yield Fault(self.life.name, phase, call, error, when)

    def some(self, known):
        """Each error of each call that no earlier life has made, in the phase where most
        depends on it; and once each kind of call that is of this life."""
        calls = {call for made in self.made.values() for call in made.most}
        seen = {call for _, call, _ in known}
        for call in sorted(calls - seen):
            for phase in ("serve", "reconnect", "reload", "restart", "stop", "start"):
                if phase in self.made and self.made[phase].most[call]:
                    if row := self.row(phase, call):
                        for error in row.errors:
                            yield Fault(self.life.name, phase, call, error, 1)
                    break
        chosen = set()
        for phase, made in self.made.items():
            for kind, at in sorted(made.kinds.items(), key=str):
                thread, call, _ = kind
                row = self.row(phase, call)
                if thread in self.life.threads and row and kind not in chosen:
                    # Its errors in turn.
                    error = row.errors[len(chosen) % len(row.errors)]
                    chosen.add(kind)
                    yield Fault(self.life.name, phase, call, error, at)

    def work_off(self, faults):
        self.run.add(faults)
        self.threads = [threading.Thread(target=worker.go) for worker in self.workers]
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()

    def go(self, known):
        """Injects them, and adds the kinds of calls to the known ones."""
        self.look()
        self.work_off(list(dict.fromkeys(self.every() if self.long else self.some(known))))
        # The call may not have been made by chance: it has further attempts.
        wanted = {}
        for phase, made in self.made.items():
            for call in made.most:
                if row := self.row(phase, call):
                    wanted.setdefault(call, []).append((phase, row.errors[0]))
        seen = {call for _, call, _ in known}
        if not self.long:
            wanted = {call: where for call, where in wanted.items() if call not in seen}
        for _ in range(2):
            missing = sorted(set(wanted) - self.run.reached[self.life.name])
            again = [(call, *where) for call in missing for where in wanted[call]]
            self.work_off([Fault(self.life.name, p, call, error, 1) for call, p, error in again])
        for call in sorted(set(wanted) - self.run.reached[self.life.name]):
            self.run.failed += 1
            print(f"FAILED  {call} was never made to fail")
        for made in self.made.values():
            known.update(made.kinds)

    def end(self):
        self.run.jobs.clear()
        for thread in self.threads:
            thread.join()
        for worker in self.workers:
            worker.drop()

    def show(self):
        calls = sorted({call for made in self.made.values() for call in made.most})
        print(f"{self.life.name}: calls of the thread that makes most of them, in each phase:")
        print(f"{'':20}" + "".join(f"{phase:>10}" for phase in self.made))
        for call in calls:
            counts = [made.most[call] or "" for made in self.made.values()]
            print(f"{call:20}" + "".join(f"{n:>10}" for n in counts))


def main():
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("edge")
    parser.add_argument("agent")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--places", type=int, default=3)
    parser.add_argument("--life", action="append", choices=[life.name for life in LIVES])
    parser.add_argument("faults", nargs="*")
    options = parser.parse_args()
    rows = read_table(HERE + "/calls.txt")
    given = collections.defaultdict(list)
    for text in options.faults:
        life, phase, call, error, when = text.split(":")
        given[life].append(Fault(life, phase, call, error, int(when)))
    work = tempfile.mkdtemp(prefix="culvert-faults-")
    peers = sweep = None
    run = Run()
    known = set()
    began = time.monotonic()
    try:
        peers = Peers(work, options.edge)
        for number, life in enumerate(LIVES):
            if options.life and life.name not in options.life or given and life.name not in given:
                continue
            numbers = range(number * options.places, (number + 1) * options.places)
            places = [Place(peers, options.agent, n, life) for n in numbers]
            sweep = Sweep(run, rows, life, places, options.long)
            if given:
                sweep.work_off(given[life.name])
            else:
                sweep.go(known)
                if life.name == "base":
                    old_kernels(sweep.workers[0], options.long)
                print(f"{life.name}: after {time.monotonic() - began:.0f} s")
            sweep.end()
    finally:
        # After a second signal it still cleans up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if sweep:
            sweep.end()
        if peers:
            peers.end()
        shutil.rmtree(work, ignore_errors=True)
    for fault in sorted(run.aborted):
        print(f"ended as documented: {fault}")
    print(f"{run.ended} of those at the start ended it, with a reason; {len(run.aborted)} ended as documented")
    print(f"{run.unreached} faults were not reached: the call was not made so often this time")
    print(f"in {time.monotonic() - began:.0f} s")
    print(f"faults: {run.passed} passed, {run.failed} failed")
    sys.exit(0 if run.failed == 0 and run.passed > 0 else 1)


def old_kernels(worker, long):
    lacking = []
    for version, calls in OLD_KERNELS.items():
        lacking += calls
        if long:
            old_kernel(worker, calls, "what is new in " + version)
    old_kernel(worker, lacking, "anything newer than 3.2")
    old_kernel(worker, lacking + ANCIENT, "anything newer than 3.0, or timers")


if __name__ == "__main__":
    main()
