import CProcess
import EventLoop
import Glibc
import Synchronization

/// A task that was started, until nothing of it is left.
package final class RunningTask: Sendable {
    /// The task's own process, the leader of its session.
    package let process: ProcessIdentity
    let attemptID: String
    let cgroup: AttemptCgroup?

    /// Whether the task is so young that process ids cannot have been given out twice since it began.
    var isShort: Bool { ContinuousClock.now - begun < .milliseconds(200) }

    private let begun = ContinuousClock.now
    private let runner: TaskRunner
    private let onEnd: TaskRunner.EndHandler
    private let leader: Descriptor
    private let token: EventLoop.Token
    private let pipes: [OutputPipe]
    private let watchdog: Watchdog?
    private let state = Mutex(State())

    private struct State {
        /// False once the leader is reaped: from then on its pid may name somebody else.
        var hasLeader = true
        var exit: TaskEnd.Exit?
        var usage = TaskEnd.Usage()
        var deadline: EventLoop.Token?
        /// Strays that were killed and are not yet dead.
        var dying: [Int32: DyingProcess] = [:]
        /// Every stray that was killed so far. One that dies by itself at the same moment counts too.
        var killed: Set<Int32> = []
        var survivors: [ProcessEntry] = []
        var isSwept = false
        var outputHeldOpen = false
        var isEnded = false
    }

    init(
        _ child: consuming SpawnedChild,
        spec: TaskSpec,
        cgroup: AttemptCgroup?,
        runner: TaskRunner,
        watchdog: Watchdog?,
        onOutput: @escaping TaskRunner.OutputHandler,
        onEnd: @escaping TaskRunner.EndHandler
    ) {
        let pid = child.pid
        process = ProcessIdentity(pid: pid, started: child.started, bootID: ProcessTable.bootID)
        attemptID = spec.attemptID
        self.cgroup = cgroup
        self.runner = runner
        self.onEnd = onEnd
        self.watchdog = watchdog
        watchdog?.guards(pid)
        token = runner.loop.makeToken()
        let stdout = OutputPipe(.stdout, reading: child.stdout, of: spec, on: runner.loop, onOutput: onOutput)
        let stderr = OutputPipe(.stderr, reading: child.stderr, of: spec, on: runner.loop, onOutput: onOutput)
        leader = child.process
        pipes = [stdout, stderr]
    }

    /// Sends SIGTERM to the task's process group. Nothing happens when its process has ended.
    package func terminate() { signalGroup(SIGTERM) }

    /// Sends SIGKILL to everything of the attempt. If the process is not dead after the runner's kill limit, the
    /// task ends as unkillable.
    package func kill() {
        signalGroup(SIGKILL)
        runner.loop.post { [self] in killEverything() }
    }

    /// Gives a task with a watchdog another deadline.
    package func order(_ order: WatchdogOrder) { watchdog?.take(order) }

    var hasLeader: Bool { state.withLock { $0.hasLeader } }

    func ownsPipe(of pid: Int32) -> Bool { pipes.contains { $0.isHeld(by: pid) } }

    private func signalGroup(_ signal: Int32) {
        // Under the lock: the leader cannot be reaped, and its pid given away, between the question and the signal.
        state.withLock { state in
            if state.hasLeader { _ = Glibc.kill(-process.pid, signal) }
        }
    }

    // MARK: on the way to the end

    /// Throws `resources`; the process is gone then, and no handler will be called.
    func begin(buffer: ReadBuffer) throws(TaskRunnerError) {
        do throws(Errno) {
            for pipe in pipes { try pipe.begin(buffer: buffer) { [self] in endIfComplete() } }
            try runner.loop.watch(leader.number, as: token) { [self] in leaderEnded() }
            // Nobody would keep the deadline any more.
            try watchdog?.watch(on: runner.loop) { [self] in kill() }
        } catch {
            state.withLock { state in
                state.isEnded = true
                state.hasLeader = false
            }
            for pipe in pipes { pipe.close() }
            cprocess_discard(process.pid)
            runner.dismiss(watchdog)
            runner.forget(leader: process.pid)
            throw TaskRunnerError(.resources, "cannot watch the process of a task", cause: error)
        }
    }

    private func leaderEnded() {
        let reaped = state.withLock { state in
            // What is left of its group dies before the reaping, while the number of the group is still ours.
            _ = Glibc.kill(-process.pid, SIGKILL)
            var code: Int32 = 0
            var signal: Int32 = 0
            var usage = cprocess_usage()
            guard unsafe cprocess_reap(process.pid, &code, &signal, &usage) == 1 else { return false }
            state.hasLeader = false
            state.exit = state.exit ?? (signal == 0 ? .code(code) : .signal(signal))
            state.usage = TaskEnd.Usage(
                user: .microseconds(usage.user_us),
                system: .microseconds(usage.system_us),
                maxResidentKiB: Int(usage.max_rss_kib)
            )
            return true
        }
        guard reaped else { return }
        runner.loop.unwatch(token, descriptor: leader.number)
        // Known until now only because it could not be killed.
        if state.withLock({ $0.isEnded }) { return runner.forget(leader: process.pid) }
        sweep()
    }

    /// Kills what is left of the attempt, and comes back when that is dead, until nothing is left.
    private func sweep() {
        if state.withLock({ $0.isSwept }) { return }
        let isPopulated: Bool
        let strays: [ProcessEntry]
        do throws(Errno) {
            isPopulated = try cgroup?.isPopulated() ?? false
            strays = try remains(ofCgroup: isPopulated)
            // After the listing, so that what dies of it is known; what is forked in between dies too.
            if isPopulated { try cgroup?.kill() }
        } catch {
            // The processes cannot be listed now (no descriptor is free). The deadline bounds the attempts.
            startDeadline()
            runner.loop.schedule(after: .milliseconds(100)) { [self] in sweep() }
            return
        }
        guard isPopulated || !strays.isEmpty else { return finishSweep(survivors: []) }
        startDeadline()
        let dying = strays.compactMap { DyingProcess(killing: $0) }
        state.withLock { state in
            state.killed.formUnion(strays.map(\.pid))
            for process in dying { state.dying[process.entry.pid] = process }
        }
        for process in dying where !process.watch(on: runner.loop, onDeath: { [self] in strayDied($0) }) {
            strayDied(process.entry)
        }
        guard dying.isEmpty else { return }
        // All of them were gone before they could be killed: look again, after the other events. In a cgroup the last
        // one may be on its way out.
        if isPopulated {
            runner.loop.schedule(after: .milliseconds(1)) { [self] in sweep() }
        } else {
            runner.loop.post { [self] in sweep() }
        }
    }

    /// What lives of the attempt without its leader. The cgroup has all of it, but for what was let out of it by
    /// somebody who may.
    private func remains(ofCgroup isPopulated: Bool) throws(Errno) -> [ProcessEntry] {
        var found: [ProcessEntry] = []
        if isPopulated, let cgroup {
            found = try cgroup.processes().filter { $0 != process.pid || !hasLeader }
                .compactMap { ProcessEntry(pid: $0) }.filter { !$0.isDead }
        }
        let others = try runner.strays(of: self)
        return found + others.filter { other in !found.contains { $0.pid == other.pid } }
    }

    private func strayDied(_ entry: ProcessEntry) {
        TaskRunner.reap(entry.pid)
        let isLast = state.withLock { state in
            state.dying.removeValue(forKey: entry.pid) != nil && state.dying.isEmpty
        }
        if isLast { runner.loop.post { [self] in sweep() } }
    }

    private func killEverything() {
        guard hasLeader, let entry = ProcessEntry(pid: process.pid) else { return }
        startDeadline()
        do throws(Errno) {
            try cgroup?.kill()
            let strays = try remains(ofCgroup: cgroup != nil)
            state.withLock { $0.killed.formUnion(strays.map(\.pid)) }
            for process in try ProcessTable.trees(of: [entry]) + strays { _ = DyingProcess(killing: process) }
        } catch {
            // The leader's death brings the sweep, which tries again.
            return
        }
    }

    /// One time limit for all of the killing, from the first signal on.
    private func startDeadline() {
        guard state.withLock({ $0.deadline == nil && !$0.isSwept }) else { return }
        let token = runner.loop.schedule(after: runner.limits.kill) { [self] in killTimeIsUp() }
        state.withLock { $0.deadline = token }
    }

    private func killTimeIsUp() {
        let (dying, hasLeader) = state.withLock { state in
            defer { state.dying = [:] }
            if state.hasLeader { state.exit = .unkillable }
            return (Array(state.dying.values), state.hasLeader)
        }
        for process in dying { process.unwatch() }
        var survivors = dying.compactMap { ProcessEntry(pid: $0.entry.pid) }.filter { !$0.isDead }
        runner.abandon(survivors)
        if hasLeader, let entry = ProcessEntry(pid: process.pid) { survivors.insert(entry, at: 0) }
        finishSweep(survivors: survivors)
    }

    private func finishSweep(survivors: [ProcessEntry]) {
        let (isFirst, deadline) = state.withLock { state in
            defer { state.isSwept = true }
            state.survivors = survivors
            return (!state.isSwept, state.deadline)
        }
        guard isFirst else { return }
        if let deadline { runner.loop.cancel(deadline) }
        if pipes.contains(where: \.isOpen) {
            let token = runner.loop.schedule(after: runner.limits.drain) { [self] in drainTimeIsUp() }
            state.withLock { $0.deadline = token }
        }
        endIfComplete()
    }

    private func drainTimeIsUp() {
        let closed = pipes.filter { $0.close() }
        if !closed.isEmpty { state.withLock { $0.outputHeldOpen = true } }
        endIfComplete()
    }

    private func endIfComplete() {
        guard !pipes.contains(where: \.isOpen) else { return }
        let (end, deadline) = state.withLock { state -> (TaskEnd?, EventLoop.Token?) in
            guard state.isSwept, !state.isEnded, let exit = state.exit else { return (nil, nil) }
            state.isEnded = true
            let end = TaskEnd(
                exit: exit,
                stdout: pipes[0].capture(),
                stderr: pipes[1].capture(),
                usage: state.usage,
                strays: state.killed.count,
                survivors: state.survivors,
                killsForMemory: cgroup?.killsForMemory() ?? 0,
                outputHeldOpen: state.outputHeldOpen
            )
            return (end, state.deadline)
        }
        guard let end else { return }
        if let deadline { runner.loop.cancel(deadline) }
        cgroup?.remove()
        // An unkillable leader stays known until it is dead and reaped.
        if !hasLeader { runner.forget(leader: process.pid) }
        runner.dismiss(watchdog)
        onEnd(end)
    }
}
