import GPUTelemetry
import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Synchronization
import WorkerCore

/// Watches a worker's device: measures it, tells the pool and the core how it is, and probes it.
final class CardKeeper: Sendable {
    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let launcher: TaskLauncher
    private let command: ProbeCommand?
    private let state: Mutex<State>
    private let subscription = Mutex<NATSSubscription?>(nil)

    private struct State {
        var day: DayCycle
        /// The last hold, so that a change is told to people once.
        var hold: CardHold?
        var lastLook: Task<Void, Never>?
    }

    /// - Parameter command: what a probe runs besides asking the driver.
    init(context: WorkerContext, mailbox: Mailbox<WorkerEvent>, launcher: TaskLauncher, command: ProbeCommand?) {
        self.context = context
        self.mailbox = mailbox
        self.launcher = launcher
        self.command = command
        state = Mutex(State(day: DayCycle(window: context.settings.settings[CommonKeys.dayWindow])))
    }

    /// Listens for the phases of the day.
    func start() throws(NATSError) {
        let heard = try context.connection.subscribe(context.names.circadianPhase) { [weak self] message in
            self?.hear(message)
        }
        subscription.withLock { $0 = heard }
    }

    private func hear(_ message: NATSMessage) {
        do throws(MalformedMessage) {
            let phase = try DayPhase(parsing: message.payload)
            state.withLock { $0.day.ask(phase, atHour: WallClock.localHour()) }
        } catch {
            context.notice("ignored a message on \(message.subject): \(error)")
        }
    }

    /// Looks once, for the core alone: nothing is claimed before the card has its limits, and it is known whether it
    /// may take jobs.
    func begin() async { note(await report(jobs: [:])) }

    /// Puts the card's power back to what it was.
    func end() async {
        subscription.withLock { $0.take() }?.cancel()
        for notice in await context.device.setPower(PowerSettings()) { context.notice(notice, level: .notice) }
    }

    private func report(jobs: [Int32: JobID]) async -> DeviceReport {
        let phase = state.withLock { $0.day.phase(atHour: WallClock.localHour()) }
        let profile = context.settings.profile(phase)
        let maximum = profile.maxTemperature
        var report = await context.device.look(at: context.clock.now(), jobs: jobs, maximum: maximum)
        if !report.isAsleep { report.notices += await context.device.setPower(profile.power) }
        return report
    }

    /// Looks at the card now, and tells the pool.
    func look() async { await look(tells: { _ in true }) }

    /// Looks at the card after a job has failed, and tells the pool when something is wrong -> `examined`.
    func examine(_ attempt: AttemptID) async {
        await look { $0.fault != nil || $0.hold != nil }
        mailbox.sendOutcome(.examined(attempt))
    }

    /// One look after the other: a second sweep over the sensors would disturb the first.
    private func look(tells: @escaping @Sendable (DeviceReport) -> Bool) async {
        let look = state.withLock { state in
            let before = state.lastLook
            let look = Task {
                await before?.value
                let report = await report(jobs: await launcher.jobsByProcess())
                note(report)
                if tells(report) { context.tell("metrics", report.metrics) }
            }
            state.lastLook = look
            return look
        }
        await look.value
    }

    private func note(_ report: DeviceReport) {
        if let fault = report.fault { mailbox.sendOutcome(.cardFailed(reason: fault)) }
        mailbox.sendOutcome(.cardHeld(report.hold))
        for notice in report.notices { context.notice(notice) }
        let before = state.withLock { state in
            defer { state.hold = report.hold }
            return state.hold
        }
        guard before?.code != report.hold?.code else { return }
        if let hold = report.hold {
            context.notice("takes no new job (\(hold.code)): \(hold.reason)")
        } else {
            context.notice("takes jobs again", level: .notice)
        }
    }

    /// Tries whether the card works -> `probeEnded`.
    func probe() async {
        var result = await context.device.probe()
        if result.ok, let command {
            let ran = await command.run()
            result = DeviceProbe(ok: ran.ok, evidence: "\(result.evidence); \(ran.evidence)")
        }
        if result.ok { context.device.recover() }
        context.notice(
            "probe \(result.ok ? "succeeded" : "failed"): \(result.evidence)",
            level: result.ok ? .notice : .warning
        )
        // The hold ends before the leader hears that the card works.
        await look()
        mailbox.sendOutcome(.probeEnded(WorkerAnswer(ok: result.ok, evidence: result.evidence)))
    }
}
