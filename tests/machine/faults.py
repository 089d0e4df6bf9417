#!/usr/bin/env python3
"""Calls of the agent that fail, one at a time, in each phase of its life.

After each fault the agent serves again within a bound, or has ended at its start with a
reason and status 1; no visitor is left without an answer or a reset; it does not panic,
spin, or keep descriptors; and SIGTERM ends it with status 0.

Which calls there are is seen in a run without faults. What they fail with is in
calls.txt; a call that is not there is a failure of this test. How often a call is made
in a phase says at which positions it is made to fail: each of the first three, then
less and less closely.

usage: faults.py EDGE AGENT [--long] [--places N] [PHASE:CALL:ERROR:N ...]
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

from agent import PHASES, Agent, Place
from world import Hung, World, until

HERE = os.path.dirname(os.path.abspath(__file__))

# How long it may take until everything is served again.
AGAIN = 30
# Processor time per second of one that has nothing to do.
BUSY = 0.5

# What kernels lack that are older than the one named.
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
    # No new privileges; names of threads are older, and nobody's loss.
    "3.5": ["prctl"],
}
# Of still older ones: not promised, but nothing needs them either.
ANCIENT = ["sendmmsg", "recvmmsg", "prlimit64", "timerfd_create", "timerfd_settime"]
# Words of a program that was denied memory which it cannot do without.
NO_MEMORY = "memory allocation of"
MEMORY_CALLS = {"mmap", "mremap", "brk"}
# The standard library's own answer to a directory that cannot be closed. It reads one
# for a list of files; no file system says so.
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


Fault = collections.namedtuple("Fault", "phase call error when")


def spell(fault):
    return ":".join(map(str, fault))


def count(trace):
    """How often each call was made, by the thread that made it most often."""
    line = re.compile(r"^(\d+) +(\w+)\(")
    threads = collections.defaultdict(collections.Counter)
    with open(trace, errors="replace") as file:
        for text in file:
            if found := line.match(text):
                threads[found[1]][found[2]] += 1
    most = collections.Counter()
    for calls in threads.values():
        for name, n in calls.items():
            most[name] = max(most[name], n)
    return most


def positions(most):
    at = 1
    while at <= most:
        yield at
        at = max(at + 1, at * 3 // 2) if at >= 3 else at + 1


class Run:
    """What came of all faults, shared by the places."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = self.unreached = 0
        self.aborted = []
        self.reached = set()
        self.ended = 0
        self.tried = 0
        self.jobs = collections.deque()
        self.all = 0

    def tell(self, text):
        with self.lock:
            print(text, flush=True)


class Worker:
    """Takes faults one after the other, with one agent as long as that lives."""

    def __init__(self, run, place, rows):
        self.run, self.place, self.rows = run, place, rows
        self.agent = None
        self.reconnects = 0
        self.trace = place.dir + "/trace"

    def fresh(self):
        """An agent that serves, without faults."""
        if self.agent is None:
            self.agent = Agent(self.place)
            if not until(AGAIN, self.agent.serves):
                raise RuntimeError("it does not serve without any fault: " + self.agent.words())
            self.settle()

    def settle(self):
        """What it has open when nothing happens."""
        self.agent.files = None
        seen = -1
        for _ in range(40):
            now = self.agent.open_files()
            if now == seen:
                break
            seen = now
            time.sleep(0.1)
        self.agent.files = seen

    def drop(self):
        if self.agent is not None:
            self.agent.kill()
            self.agent = None

    def calm(self, allowed=0):
        """Nothing is left of what was under way: no descriptors, no work."""
        agent = self.agent
        if not until(10, lambda: agent.open_files() <= agent.files + allowed):
            return f"it keeps descriptors: {agent.open_files()}, at first {agent.files}"
        for length in (0.15, 1.0):
            before = agent.cpu()
            time.sleep(length)
            if agent.cpu() - before < BUSY * length:
                return ""
        return "it is busy with nothing"

    def verdict_of_end(self, fault):
        """It has ended though nobody told it to."""
        status = self.agent.process.wait()
        words = self.agent.words()
        if self.known_abort(fault) and status < 0:
            self.run.aborted.append(spell(fault))
            return ""
        # Before its first line the C library has no words.
        if (fault.phase, fault.call, fault.when, status) == ("start", "mmap", 1, -signal.SIGSEGV):
            self.run.aborted.append(spell(fault))
            return ""
        if status < 0:
            return f"it died of signal {-status}"
        if fault.phase != "start" or self.rows[fault.call].start == "serve":
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
        # What is not traced does not fail either.
        options = ["-e", f"trace={fault.call}", "-e", "signal=none", "-e", inject]
        problem = ""
        if fault.phase == "start":
            self.drop()
            self.agent = Agent(self.place, self.trace, options)
            try:
                self.agent.act("start")
            except Hung as hung:
                problem = f"no answer and no reset: {hung}"
            self.agent.leave_tracer()
        else:
            self.fresh()
            tracer = self.agent.attach(self.trace, options)
            try:
                self.agent.act(fault.phase)
            except Hung as hung:
                problem = f"no answer and no reset: {hung}"
            self.agent.detach(tracer)
        if problem and fault.call == "shutdown":
            # Nobody was told, since the connection is not dead.
            problem = ""
        if problem:
            return problem
        agent = self.agent
        if fault.phase == "stop":
            if not agent.ended():
                return "it does not end when it is told to"
            if agent.process.returncode != 0:
                return f"told to end it did with {agent.process.returncode}"
            self.agent = None
            return ""
        if not until(AGAIN, lambda: agent.ended() or agent.serves()):
            return "it neither serves nor ends"
        if agent.ended():
            return self.verdict_of_end(fault)
        if fault.phase == "start":
            self.settle()
        # What was not closed is open, and what was not told of an end waits for it, here
        # alone: these calls fail after they have done their work. The other end of what was
        # not closed may be one of ours, too. Once asked for, /dev/urandom stays open.
        made = len(self.injected())
        allowed = {"close": 2 * made, "shutdown": made, "getrandom": 1}.get(fault.call, 0)
        if problem := self.calm(allowed):
            return problem
        if allowed:
            self.settle()
        if fault.phase == "reload" and not self.place.reload(agent, AGAIN):
            return "it does not read its configuration any more"
        return ""

    def stop(self):
        """Told to, it ends, with 0."""
        agent, self.agent = self.agent, None
        if agent is None or agent.ended():
            return ""
        agent.act("stop")
        if not agent.ended():
            agent.kill()
            return "later: it does not end when it is told to"
        status = agent.process.returncode
        return f"later: told to end it did with {status}" if status else ""

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
                # One that has once had no getrandom goes on with /dev/urandom: another
                # fault would be its second.
                # After many a reconnect the waits between attempts are long.
                self.reconnects += fault.phase == "reconnect"
                worn = fault.phase == "reconnect" and self.reconnects % 3 == 0
                if not problem and (fault.phase == "start" or fault.call == "getrandom" or worn):
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
                    self.run.reached.add(fault.call)
                else:
                    self.run.unreached += 1
            if problem:
                tail = "".join(f"    {line}\n" for line in words.splitlines()[-6:] + log.splitlines()[-14:])
                self.run.tell(f"FAILED  {spell(fault)}: {problem}\n    {reached}\n{tail}")
                self.drop()
            elif self.agent is not None and self.agent.ended():
                self.agent = None
        if problem := self.stop():
            with self.run.lock:
                self.run.failed += 1
            self.run.tell(f"FAILED  place {self.place.number}: {problem}")

    def injected(self):
        with open(self.trace, errors="replace") as file:
            return [line.strip() for line in file if "(INJECTED)" in line]


def record(place, phases):
    """A life without faults: how often each call is made in each phase."""
    trace = place.dir + "/trace"
    quiet = ["-e", "signal=none"]
    agent = Agent(place, trace, quiet)
    try:
        agent.act("start")
        if agent.ended() or not agent.serves():
            raise SystemExit("the agent does not start:\n" + agent.words())
        agent.leave_tracer()
        made = {"start": count(trace)}
        for phase in phases:
            if phase == "start":
                continue
            tracer = agent.attach(trace, quiet)
            agent.act(phase)
            agent.detach(tracer)
            made[phase] = count(trace)
    finally:
        agent.kill()
    return made


def old_kernel(worker, missing, name):
    """A whole life on a kernel that lacks these calls."""
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


def main():
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("edge")
    parser.add_argument("agent")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--places", type=int, default=3)
    parser.add_argument("faults", nargs="*")
    options = parser.parse_args()
    rows = read_table(HERE + "/calls.txt")
    work = tempfile.mkdtemp(prefix="culvert-faults-")
    world = None
    workers, threads = [], []
    run = Run()
    began = time.monotonic()
    try:
        world = World(work, options.edge)
        places = [Place(world, options.agent, n) for n in range(options.places)]
        workers = [Worker(run, place, rows) for place in places]
        if options.faults:
            for text in options.faults:
                phase, call, error, when = text.split(":")
                run.jobs.append(Fault(phase, call, error, int(when)))
        else:
            phases = [phase for phase in PHASES if options.long or phase != "idle"]
            made = record(places[0], phases)
            if options.long:
                show(made, rows)
            unknown = sorted({call for calls in made.values() for call in calls} - set(rows))
            made = {
                phase: collections.Counter({c: n for c, n in calls.items() if c in rows})
                for phase, calls in made.items()
            }
            for call in unknown:
                run.failed += 1
                print(f"FAILED  the agent makes a call that calls.txt does not have: {call}")
            choose = every if options.long else some
            run.jobs.extend(choose(made, rows))
        run.all = len(run.jobs)
        work_off(workers, threads)
        if not options.faults:
            # By chance a call may not have been made: it has further chances.
            wanted = {call for calls in made.values() for call in calls if not rows[call].never}
            for _ in range(2):
                for call in sorted(wanted - run.reached):
                    phases = [phase for phase in made if made[phase][call]]
                    run.jobs += [Fault(phase, call, rows[call].errors[0], 1) for phase in phases]
                work_off(workers, threads)
            for call in sorted(wanted - run.reached):
                run.failed += 1
                print(f"FAILED  {call} was never made to fail")
            lacking = []
            for version, calls in OLD_KERNELS.items():
                lacking += calls
                if options.long:
                    old_kernel(workers[0], calls, "what is new in " + version)
            old_kernel(workers[0], lacking, "anything newer than 3.2")
            old_kernel(workers[0], lacking + ANCIENT, "anything newer than 3.0, or timers")
    finally:
        run.jobs.clear()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.drop()
        if world:
            world.end()
        shutil.rmtree(work, ignore_errors=True)
    for fault in sorted(run.aborted):
        print(f"ended as documented: {fault}")
    print(f"{run.ended} of those at the start ended it, with a reason; {len(run.aborted)} ended as documented")
    print(f"{run.unreached} faults were not reached: the call was not made so often this time")
    print(f"in {time.monotonic() - began:.0f} s")
    print(f"faults: {run.passed} passed, {run.failed} failed")
    sys.exit(0 if run.failed == 0 and run.passed > 0 else 1)


def work_off(workers, threads):
    threads[:] = [threading.Thread(target=worker.go) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def every(made, rows):
    faults = []
    for phase, calls in made.items():
        for call, most in sorted(calls.items()):
            row = rows.get(call)
            if row is None or row.never:
                continue
            for error in row.errors:
                # To be idle takes long, and is the same thing over and over.
                chosen = positions(min(most, 2) if phase == "idle" else most)
                faults += [Fault(phase, call, error, when) for when in chosen]
    return faults


def some(made, rows):
    """Each error of each call once, in the phase where most depends on it."""
    faults = []
    for call in sorted({call for calls in made.values() for call in calls}):
        row = rows.get(call)
        if row is None or row.never:
            continue
        for phase in ("serve", "reconnect", "reload", "stop", "start"):
            if phase in made and made[phase][call]:
                faults += [Fault(phase, call, error, 1) for error in row.errors]
                break
    return faults


def show(made, rows):
    calls = sorted({call for calls in made.values() for call in calls})
    print("calls of the thread that makes most of them, in each phase:")
    print(f"{'':20}" + "".join(f"{phase:>10}" for phase in made))
    for call in calls:
        print(f"{call:20}" + "".join(f"{made[phase][call] or '':>10}" for phase in made))


if __name__ == "__main__":
    main()
