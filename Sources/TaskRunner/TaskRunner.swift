import CProcess
import EventLoop
import Glibc
import Synchronization

/// Runs tasks as child processes and lets nothing of them outlive them.
///
/// It owns all children of its process: whatever else falls to it was left by a task. So there is one in a process,
/// and the process starts no other children.
package final class TaskRunner: Sendable {
    /// Gets every piece of output with its place in the stream, on the loop's thread; must not block.
    package typealias OutputHandler = @Sendable (TaskStream, ArraySlice<UInt8>, UInt64) -> Void
    /// Called once for each started task, on the loop's thread, after nothing of it is left; must not block.
    package typealias EndHandler = @Sendable (TaskEnd) -> Void

    package struct Limits: Sendable {
        /// How long after SIGKILL a process may live before it counts as unkillable.
        package var kill: Duration
        /// How long after a task's last process its output may stay open.
        package var drain: Duration

        package init(kill: Duration = .seconds(10), drain: Duration = .seconds(2)) {
            self.kill = kill
            self.drain = drain
        }
    }

    /// What every task is held by.
    package struct Confinement: Sendable {
        /// Where each attempt gets a cgroup of its own; nil: its processes are told by session, descent, marker and pipes.
        package var cgroups: CgroupTree?
        /// Whom tasks run as; nil: as this process.
        package var user: JobUser?
        /// Tasks may neither make nor enter namespaces, and set-user-id programs give them no rights.
        package var deniesNamespaces: Bool

        package init(cgroups: CgroupTree? = nil, user: JobUser? = nil, deniesNamespaces: Bool = false) {
            self.cgroups = cgroups
            self.user = user
            self.deniesNamespaces = deniesNamespaces
        }
    }

    /// The variable by which the processes of one worker are known, over its restarts.
    package static let workerVariable = "MAESTRO_WORKER"
    /// The variable by which the processes of one attempt are known.
    package static let attemptVariable = "TASK_ATTEMPT_ID"

    let loop: EventLoop
    let limits: Limits
    private let workerMarker: String
    private let confinement: Confinement
    private let buffer = ReadBuffer()
    /// Held while a process is started, so that nobody takes it for a stray before it is known.
    private let spawning = Mutex(())
    private let known = Mutex(Known())

    private struct Known {
        /// Tasks that have not ended, by the pid of their leader.
        var tasks: [Int32: RunningTask] = [:]
        /// Processes that outlived SIGKILL.
        var abandoned: Set<Int32> = []
        var watchdogs: Set<Int32> = []
    }

    /// - Parameter workerMarker: the same for every life of this worker, different from every other worker's.
    ///
    /// Throws `system` when the kernel will not give orphaned processes to this one.
    package init(
        loop: EventLoop,
        workerMarker: String,
        confinement: Confinement = Confinement(),
        limits: Limits = Limits()
    ) throws(TaskRunnerError) {
        guard cprocess_become_subreaper() == 0 else {
            throw TaskRunnerError(.system, "cannot become the reaper of orphaned processes", cause: .current)
        }
        self.loop = loop
        self.workerMarker = workerMarker
        self.confinement = confinement
        self.limits = limits
    }

    /// Starts a task. Blocks until its program was executed or refused (about half a millisecond).
    ///
    /// `onOutput` and `onEnd` may be called before this returns.
    /// Throws `invalidTask`, `programNotFound`, `programNotExecutable` or `resources`; then no handler is called.
    package func start(
        _ spec: TaskSpec,
        onOutput: @escaping OutputHandler,
        onEnd: @escaping EndHandler
    ) throws(TaskRunnerError) -> RunningTask {
        guard let name = spec.arguments.first else { throw TaskRunnerError(.invalidTask, "there is no command") }
        let environment = try variables(of: spec)
        let path = spec.environment.last { $0.name == "PATH" }?.value
        let program = try Spawn.find(name, path: path, in: spec.directory)
        let cgroup = try confinement.cgroups?.make(attemptID: spec.attemptID, limits: spec.limits)
        do throws(TaskRunnerError) {
            let task = try spawning.withLock { _ throws(TaskRunnerError) in
                let watchdog = try makeWatchdog(for: spec)
                do throws(TaskRunnerError) {
                    return try spawn(program, spec, environment, cgroup, watchdog, onOutput, onEnd)
                } catch {
                    dismiss(watchdog)
                    throw error
                }
            }
            try task.begin(buffer: buffer)
            return task
        } catch {
            cgroup?.remove()
            throw error
        }
    }

    private func held(in cgroup: AttemptCgroup?, _ limits: ResourceLimits) -> Spawn.Confinement {
        let isHeldAsOne = confinement.cgroups?.controllers.contains(.memory) ?? false
        return Spawn.Confinement(
            cgroup: cgroup,
            user: confinement.user,
            deniesNamespaces: confinement.deniesNamespaces,
            dataLimit: isHeldAsOne ? nil : limits.memoryBytes
        )
    }

    private func spawn(
        _ program: String,
        _ spec: TaskSpec,
        _ environment: [String],
        _ cgroup: AttemptCgroup?,
        _ watchdog: Watchdog?,
        _ onOutput: @escaping OutputHandler,
        _ onEnd: @escaping EndHandler
    ) throws(TaskRunnerError) -> RunningTask {
        let child = try Spawn.start(
            program: program,
            arguments: spec.arguments,
            environment: environment,
            directory: spec.directory,
            confinement: held(in: cgroup, spec.limits)
        )
        let task = RunningTask(
            child,
            spec: spec,
            cgroup: cgroup,
            runner: self,
            watchdog: watchdog,
            onOutput: onOutput,
            onEnd: onEnd
        )
        known.withLock { $0.tasks[task.process.pid] = task }
        return task
    }

    /// The watchdog is there before the process that it guards.
    private func makeWatchdog(for spec: TaskSpec) throws(TaskRunnerError) -> Watchdog? {
        guard let order = spec.watchdog else { return nil }
        let watchdog = try Watchdog(marker: "\(Self.attemptVariable)=\(spec.attemptID)", order)
        known.withLock { _ = $0.watchdogs.insert(watchdog.pid) }
        return watchdog
    }

    /// Reaps orphans of running tasks that have died. To be called now and then while tasks run (a worker does at
    /// its heartbeats), so that a long task which makes daemons leaves no dead ones about.
    package func reapOrphans() {
        spawning.withLock { _ in
            var dead: pid_t = 0
            while unsafe cprocess_peek(&dead) == 2 {
                // A leader that is dead has its own handler, and hides the others from us until that has run.
                guard !isLeader(dead), Self.reap(dead) else { return }
                forgetAbandoned(dead)
            }
        }
    }

    /// The processes of each task that runs now, by attempt: those of its cgroup, or its own, those of its session that
    /// have lost their parents, and what descends from them. Looks into `/proc`.
    package func processes() throws(Errno) -> [(attemptID: String, pids: [Int32])] {
        let tasks = known.withLock { $0.tasks.values.filter(\.hasLeader) }
        guard !tasks.isEmpty else { return [] }
        guard confinement.cgroups == nil else {
            var found: [(attemptID: String, pids: [Int32])] = []
            for task in tasks.sorted(by: { $0.attemptID < $1.attemptID }) {
                found.append((task.attemptID, try task.cgroup?.processes() ?? []))
            }
            return found
        }
        let bySession = Dictionary(grouping: try ProcessTable.children(), by: \.session)
        var found: [(attemptID: String, pids: [Int32])] = []
        for task in tasks.sorted(by: { $0.attemptID < $1.attemptID }) {
            let roots = (bySession[task.process.pid] ?? []).filter { !$0.isDead }
            found.append((task.attemptID, try ProcessTable.descendants(of: roots)))
        }
        return found
    }

    private func variables(of spec: TaskSpec) throws(TaskRunnerError) -> [String] {
        var order: [String] = []
        var values: [String: String] = [:]
        let markers = [(Self.workerVariable, workerMarker), (Self.attemptVariable, spec.attemptID)]
        for (name, value) in spec.environment + markers {
            guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")) else {
                throw TaskRunnerError(.invalidTask, "\"\(name)\" cannot be the name of a variable")
            }
            if values.updateValue(value, forKey: name) == nil { order.append(name) }
        }
        return order.map { "\($0)=\(values[$0] ?? "")" }
    }

    // MARK: for RunningTask

    /// The task has ended, or its start failed.
    func forget(leader pid: Int32) {
        known.withLock { _ = $0.tasks.removeValue(forKey: pid) }
    }

    /// Nothing is left that it would have to end.
    func dismiss(_ watchdog: Watchdog?) {
        guard let watchdog else { return }
        watchdog.end(on: loop)
        known.withLock { _ = $0.watchdogs.remove(watchdog.pid) }
    }

    /// These processes cannot be killed: no further task waits for them.
    func abandon(_ processes: [ProcessEntry]) {
        known.withLock { $0.abandoned.formUnion(processes.map(\.pid)) }
    }

    /// The living processes of an attempt that do not descend from its leader, with all their descendants.
    func strays(of task: RunningTask) throws(Errno) -> [ProcessEntry] {
        var dead: pid_t = 0
        // The usual case costs one call: no children at all.
        if unsafe cprocess_peek(&dead) == 0 { return [] }
        let unknown = try orphans(since: task.isShort ? task.process.pid : nil)
        guard !unknown.isEmpty else { return [] }
        // What looked like an orphan may be a process that is being started; while none is, there is no doubt.
        let roots = try spawning.withLock { _ throws(Errno) in
            try orphans().filter { !$0.isDead || !reapDead($0.pid) }
        }
        let tasks = known.withLock { $0.tasks.values.map { $0 } }
        let mine = roots.filter { !$0.isDead && Self.owner(of: $0, among: tasks, ending: task) === task }
        return try ProcessTable.trees(of: mine).filter { !$0.isDead }
    }

    /// Adopted children, and others that are no leader, living or dead; of those that were abandoned, only the dead.
    private func orphans(since: Int32? = nil) throws(Errno) -> [ProcessEntry] {
        let children = try ProcessTable.adopted(since: since)
        return known.withLock { known in
            children.filter { child in
                if known.tasks[child.pid]?.hasLeader ?? false { return false }
                if known.watchdogs.contains(child.pid) { return false }
                return child.isDead || !known.abandoned.contains(child.pid)
            }
        }
    }

    /// Which task a stray belongs to; nil for one that another, running task may have started.
    ///
    /// A stray that tells nothing about itself (its session, environment and pipes are its own) can be of any task
    /// that ran when it began. It is left to the last of them to end, so that no task loses a process of its own.
    private static func owner(
        of stray: ProcessEntry,
        among tasks: [RunningTask],
        ending: RunningTask
    ) -> RunningTask? {
        if let owner = tasks.first(where: { $0.process.pid == stray.session }) { return owner }
        if let marker = ProcessTable.variable(attemptVariable, of: stray.pid) {
            // The marker of a task that has ended already: left over, whoever finds it.
            return tasks.first { $0.attemptID == marker } ?? ending
        }
        if let owner = tasks.first(where: { $0.ownsPipe(of: stray.pid) }) { return owner }
        let isAnothers = tasks.contains {
            $0 !== ending && $0.hasLeader && $0.process.started <= stray.started
        }
        return isAnothers ? nil : ending
    }

    private func isLeader(_ pid: Int32) -> Bool {
        known.withLock { $0.tasks[pid]?.hasLeader ?? false }
    }

    private func reapDead(_ pid: Int32) -> Bool {
        guard Self.reap(pid) else { return false }
        forgetAbandoned(pid)
        return true
    }

    private func forgetAbandoned(_ pid: Int32) {
        known.withLock { _ = $0.abandoned.remove(pid) }
    }

    /// Reaps a dead child whose end interests nobody; false when it is not our child or not dead.
    @discardableResult
    static func reap(_ pid: Int32) -> Bool {
        var code: Int32 = 0
        var signal: Int32 = 0
        var usage = cprocess_usage()
        return unsafe cprocess_reap(pid, &code, &signal, &usage) == 1
    }
}
