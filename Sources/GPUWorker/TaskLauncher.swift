import EventLoop
import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport
import Synchronization
import TaskRunner
import WireJSON
import WorkerCore

/// Starts and ends the processes of attempts, and keeps what belongs to them on disk.
final class TaskLauncher: Sendable {
    /// What belongs to an attempt from its start to its close.
    private struct Live {
        let job: JobID
        let streamer: LogStreamer
        var task: RunningTask?
        /// The mailbox was told of the start; the end is held back until then.
        var isStarted = false
        var end: ProcessEnd?
        /// Nothing of it is alive.
        var isLeft = true
    }

    private struct State {
        var live: [AttemptID: Live] = [:]
        /// Attempts with an entry in the journal that is not closed.
        var journaled: Set<AttemptID> = []
        /// Until when attempts may run that are to be fenced, as last ordered.
        var fences: [AttemptID: WatchdogOrder] = [:]
        /// Those among them whose report was written and not synced.
        var unsynced: Set<AttemptID> = []
    }

    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let runner: TaskRunner
    private let journal: AttemptJournal
    private let directories: TaskDirectories
    private let caches: CacheDesk
    private let work = BlockingWork(label: "gpu-worker.files")
    private let state = Mutex(State())

    init(
        context: WorkerContext,
        mailbox: Mailbox<WorkerEvent>,
        runner: TaskRunner,
        journal: AttemptJournal,
        directories: TaskDirectories,
        caches: CacheDesk
    ) {
        self.context = context
        self.mailbox = mailbox
        self.runner = runner
        self.journal = journal
        self.directories = directories
        self.caches = caches
    }

    // MARK: before

    /// Why this worker will not run a task at all; nil if it may.
    func objection(to record: JobRecord) async -> TaskObjection? {
        let task: JobTask
        do throws(TaskRefusal) {
            task = try record.task()
        } catch {
            return TaskObjection(code: .badTask, reason: error.reason)
        }
        if let objection = context.trust?.objection(to: record, task) { return objection }
        if case .failure(let objection) = context.jobs.limits(asked: task.resources) {
            return TaskObjection(code: .forbidden, reason: objection.reason)
        }
        guard let path = task.workingDirectory else { return nil }
        let allowed = context.settings.settings[WorkerSettings.Keys.allowedDirectories]
        return await work.run { [directories] in
            do throws(TaskRunnerError) {
                _ = try directories.resolve(path, allowed: allowed)
                return nil
            } catch {
                guard error.code == .outsideCache else { return nil }
                let reason = "cwd \(error); it must lie in the card's cache \(directories.cachePath) or under ALLOW_CWD"
                return TaskObjection(code: .forbidden, reason: reason)
            }
        }
    }

    // MARK: running

    private struct LaunchFailure: Error {
        let code: FailureCode
        let reason: String
    }

    /// Journals the attempt and starts its process; tells the mailbox what came of it.
    func start(_ attempt: AttemptID, _ record: JobRecord) async {
        let streamer = LogStreamer(
            context.jetStream,
            names: context.names,
            job: record.id,
            attempt: attempt,
            limit: context.settings.settings[WorkerSettings.Keys.logStreamSize] << 10,
            now: { [clock = context.clock] in clock.now() },
            logger: context.logger
        )
        state.withLock { $0.live[attempt] = Live(job: record.id, streamer: streamer) }
        await work.run { [self] in
            do throws(LaunchFailure) {
                let directory = try launch(attempt, record, streamer)
                mailbox.sendOutcome(.started(attempt, directory: directory))
                noteStarted(attempt)
            } catch {
                streamer.end()
                mailbox.sendOutcome(.startFailed(attempt, error.code, reason: error.reason))
            }
        }
    }

    private func launch(
        _ attempt: AttemptID,
        _ record: JobRecord,
        _ streamer: LogStreamer
    ) throws(LaunchFailure) -> String {
        do {
            let task = try record.task()
            caches.note(task.cacheKeys)
            let own = try directories.open(task: record.id.text)
            let settings = context.settings.settings
            let allowed = settings[WorkerSettings.Keys.allowedDirectories]
            let directory = try task.workingDirectory.map { try directories.resolve($0, allowed: allowed) } ?? own
            let logs = try journal.begin(attemptID: attempt.text, document: Self.document(record))
            state.withLock { _ = $0.journaled.insert(attempt) }
            var spec = TaskSpec(
                arguments: task.command.processArguments,
                environment: JobEnvironment(context).variables(task, record, attempt, directory: own.path),
                directory: directory,
                attemptID: attempt.text,
                logs: logs,
                captureLimit: AttemptReport.Output.limit,
                fileLimit: settings[WorkerSettings.Keys.logFileSize] << 20,
                watchdog: try fence(of: attempt)
            )
            if case .success(let limits) = context.jobs.limits(asked: task.resources) { spec.limits = limits }
            let running = try runner.start(
                spec,
                onOutput: { stream, bytes, _ in streamer.append(stream.ofChunks, bytes) },
                onEnd: { [weak self] end in self?.noteEnd(attempt, end) }
            )
            noteProcess(attempt, running)
            return directory.path
        } catch let error as LaunchFailure {
            throw error
        } catch let error as TaskRefusal {
            throw LaunchFailure(code: .badTask, reason: error.reason)
        } catch let error as TaskRunnerError {
            throw LaunchFailure(code: error.failureCode, reason: error.description)
        } catch {
            throw LaunchFailure(code: .workerFault, reason: "\(error)")
        }
    }

    // MARK: fences

    /// What has less time left than this is not started.
    private static let leastTime: Int64 = 100_000_000

    /// Has the attempt end at that time, whatever becomes of this worker.
    func fence(_ attempt: AttemptID, until: Timestamp, grace: Duration) {
        let order = WatchdogOrder(deadline: context.clock.bootTime(of: until), grace: grace)
        let task = state.withLock { state in
            state.fences[attempt] = order
            return state.live[attempt]?.task
        }
        task?.order(order)
    }

    /// The watchdog of an attempt that is about to start; nil for one that is not fenced. Looked at last of all, since
    /// what comes before may have waited for the disk.
    private func fence(of attempt: AttemptID) throws(LaunchFailure) -> WatchdogOrder? {
        guard let order = state.withLock({ $0.fences[attempt] }) else { return nil }
        guard order.deadline - context.clock.bootTime(of: context.clock.now()) > Self.leastTime else {
            throw LaunchFailure(code: .fenced, reason: "its worker was cut off before it was started (partition)")
        }
        return order
    }

    /// The process runs: what goes wrong from here on is no reason to call the start failed.
    private func noteProcess(_ attempt: AttemptID, _ running: RunningTask) {
        let fence = state.withLock { state in
            state.live[attempt]?.task = running
            return state.fences[attempt]
        }
        // It may have moved while the process was being started.
        if let fence { running.order(fence) }
        do throws(TaskRunnerError) {
            try journal.started(running.process, attemptID: attempt.text)
        } catch {
            // A next life finds the process by the marker in its environment.
            context.notice("attempt \(attempt): its process could not be written down: \(error)")
        }
    }

    private func noteStarted(_ attempt: AttemptID) {
        let end = state.withLock { state in
            state.live[attempt]?.isStarted = true
            return state.live[attempt]?.end
        }
        if let end { mailbox.sendOutcome(.ended(attempt, end)) }
    }

    private func noteEnd(_ attempt: AttemptID, _ end: TaskEnd) {
        let processEnd = ProcessEnd(end)
        let (streamer, isStarted) = state.withLock { state in
            state.live[attempt]?.end = processEnd
            state.live[attempt]?.isLeft = end.survivors.isEmpty
            state.live[attempt]?.task = nil
            state.fences[attempt] = nil
            return (state.live[attempt]?.streamer, state.live[attempt]?.isStarted ?? false)
        }
        streamer?.end()
        if isStarted { mailbox.sendOutcome(.ended(attempt, processEnd)) }
    }

    /// Whose the processes are that run now.
    func jobsByProcess() async -> [Int32: JobID] {
        guard state.withLock({ $0.live.values.contains { $0.task != nil } }) else { return [:] }
        let found = await work.run { [runner] () -> Result<[(attemptID: String, pids: [Int32])], Errno> in
            do throws(Errno) {
                return .success(try runner.processes())
            } catch {
                return .failure(error)
            }
        }
        switch found {
        case .failure(let error):
            context.logger.debug("the processes of jobs cannot be listed", metadata: ["error": "\(error)"])
            return [:]
        case .success(let tasks):
            return state.withLock { state in
                var jobs: [Int32: JobID] = [:]
                for (attempt, pids) in tasks {
                    guard let job = AttemptID(attempt).flatMap({ state.live[$0]?.job }) else { continue }
                    for pid in pids { jobs[pid] = job }
                }
                return jobs
            }
        }
    }

    func terminate(_ attempt: AttemptID) { state.withLock { $0.live[attempt]?.task }?.terminate() }
    func kill(_ attempt: AttemptID) { state.withLock { $0.live[attempt]?.task }?.kill() }

    private static func document(_ record: JobRecord) -> [UInt8] {
        var writer = JSONWriter(capacity: 192)
        writer.beginObject()
        writer.field("task_id", record.id.text)
        writer.field("tries", record.tries)
        writer.endObject()
        return writer.bytes
    }

    // MARK: after

    /// Writes the report and waits until the output has been sent. A report that cannot be written is told; the attempt
    /// is reported all the same, as long as this life lasts.
    ///
    /// The report is synced only while the bus is away, or when its attempt is still open after a while
    /// (``tidy()``): nearly always the record has the end a millisecond later, and until then a power
    /// cut costs what it would have cost a moment before, one more attempt.
    func report(_ report: AttemptReport) async {
        // At once, not after the output: the bus may be away for long.
        async let stored: Void = store(report)
        await state.withLock { $0.live[report.attempt]?.streamer }?.finish()
        await stored
        mailbox.sendOutcome(.reported(report.attempt))
    }

    private func store(_ report: AttemptReport) async {
        let isAway = !context.connection.isConnected
        let isJournaled = state.withLock { state in
            guard state.journaled.contains(report.attempt) else { return false }
            if !isAway { state.unsynced.insert(report.attempt) }
            return true
        }
        guard isJournaled else { return }
        let problem = await work.run { [journal] () -> TaskRunnerError? in
            do throws(TaskRunnerError) {
                try journal.report(report.journalDocument(), attemptID: report.attempt.text)
                if isAway { try journal.synchronize(attemptID: report.attempt.text) }
                return nil
            } catch {
                return error
            }
        }
        if let problem { context.notice("the report of job \(report.job) is not on the disk: \(problem)") }
    }

    /// To be called now and then: reaps what tasks have left, and syncs the reports whose attempts are still open.
    func tidy() async {
        // Waits while a process is being started.
        await work.run { [runner] in runner.reapOrphans() }
        await synchronizeReports()
    }

    private func synchronizeReports() async {
        let attempts = state.withLock { state in
            defer { state.unsynced = [] }
            return state.unsynced
        }
        guard !attempts.isEmpty else { return }
        let problems = await work.run { [journal] () -> [TaskRunnerError] in
            attempts.compactMap { attempt in
                do throws(TaskRunnerError) {
                    try journal.synchronize(attemptID: attempt.text)
                    return nil
                } catch {
                    return error
                }
            }
        }
        for problem in problems { context.notice("a report is not on the disk: \(problem)") }
    }

    /// The attempt needs nothing more: its journal entry and its directory may go when there are too many.
    func close(_ attempt: AttemptID) async {
        let (live, isJournaled) = state.withLock { state in
            state.fences[attempt] = nil
            state.unsynced.remove(attempt)
            return (state.live.removeValue(forKey: attempt), state.journaled.remove(attempt) != nil)
        }
        let now = context.clock.now().seconds
        let problems = await work.run { [journal, directories] () -> [TaskRunnerError] in
            var problems: [TaskRunnerError] = []
            do throws(TaskRunnerError) {
                if isJournaled { try journal.close(attemptID: attempt.text, at: now) }
            } catch {
                problems.append(error)
            }
            if let live { directories.release(task: live.job.text, isLeft: live.isLeft, at: now) }
            return problems + journal.prune(at: now) + directories.prune(at: now)
        }
        for problem in problems { context.notice("\(problem)") }
    }

    // MARK: earlier lives

    /// The attempts that earlier lives have left open, after every process of them is gone. Blocks.
    func recover() throws(TaskRunnerError) -> [RecoveredAttempt] {
        let (entries, damage) = try journal.recover()
        for line in damage { context.notice("the journal of attempts cannot be read whole: \(line)") }
        let killed = try EarlierLife.end(
            workerMarker: context.settings.marker,
            journaled: entries.compactMap(\.process),
            within: .seconds(20)
        )
        for process in killed { context.notice("killed \(process), which an earlier life of this worker had left") }
        var attempts: [RecoveredAttempt] = []
        for entry in entries { if let attempt = try recovered(entry) { attempts.append(attempt) } }
        return attempts
    }

    private func recovered(_ entry: AttemptJournal.Entry) throws(TaskRunnerError) -> RecoveredAttempt? {
        for damage in entry.damage { context.notice("attempt \(entry.attemptID): \(damage)") }
        guard let attempt = AttemptID(entry.attemptID),
            let job = entry.attempt?["task_id"]?.stringValue.flatMap({ JobID($0) })
        else {
            // Nobody can tell whose it was: its record, if there is one, is closed when its run message comes again.
            context.notice(
                "attempt \(entry.attemptID) of an earlier life names no job and is left to be closed by maestro"
            )
            try journal.close(attemptID: entry.attemptID, at: context.clock.now().seconds)
            return nil
        }
        state.withLock { _ = $0.journaled.insert(attempt) }
        guard let json = entry.report else { return RecoveredAttempt(job: job, attempt: attempt, report: nil) }
        do throws(MalformedMessage) {
            return RecoveredAttempt(job: job, attempt: attempt, report: try AttemptReport(journal: json))
        } catch {
            context.notice("attempt \(attempt): its report cannot be used: \(error)")
            return RecoveredAttempt(job: job, attempt: attempt, report: nil)
        }
    }
}
