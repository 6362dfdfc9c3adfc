import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport
import Synchronization
import WireJSON
import WorkerCore

/// The rhythm of a worker: it tells that it lives and what it runs, and has its card looked at.
final class WorkerPulse: Sendable {
    private struct State {
        var counter: UInt64 = 0
        /// Earlier lives are closed: from here on heartbeats may say what runs, and what does not.
        var isReady = false
        var running: [Heartbeat.RunningAttempt] = []
        var isDraining = false
        /// The shell has handled something since the last heartbeat.
        var hasProgress = true
        /// When heartbeats were sent whose answers may still come.
        var sent: [UInt64: Timestamp] = [:]
        var answers: NATSSubscription?
    }

    /// Heartbeats that may wait for their answer; what is older is too old for a fence.
    private static let answerable: UInt64 = 64

    private let context: WorkerContext
    private let notifier = ServiceNotifier()
    private let state = Mutex(State())

    init(context: WorkerContext) {
        self.context = context
    }

    private var slots: Int { context.settings.settings[WorkerSettings.Keys.slots] }

    func note(running: [Heartbeat.RunningAttempt], isDraining: Bool) {
        state.withLock { state in
            state.running = running
            state.isDraining = isDraining
            state.hasProgress = true
        }
    }

    /// Tells systemd, if it started this worker, that it is ready.
    func ready() {
        state.withLock { $0.isReady = true }
        notifier.ready()
    }

    func stopping() { notifier.stopping() }

    /// Beats and measures until its task is cancelled.
    /// - Parameters:
    ///   - ask: gives the shell something to handle, so that an idle one shows that it is not stuck.
    ///   - measure: one sample of the card.
    ///   - tidy: what else is done after each beat.
    func run(
        ask: @escaping @Sendable () -> Void,
        measure: @escaping @Sendable () async -> Void,
        tidy: @escaping @Sendable () async -> Void
    ) async {
        let settings = context.settings.settings
        await withDiscardingTaskGroup { group in
            group.addTask { [self] in
                await Self.repeating(every: settings.duration(WorkerSettings.Keys.heartbeat)) {
                    beat()
                    ask()
                    await tidy()
                }
            }
            group.addTask {
                await Self.repeating(every: settings.duration(WorkerSettings.Keys.metrics), measure)
            }
        }
    }

    static func repeating(every interval: Duration, _ body: () async -> Void) async {
        let clock = ContinuousClock()
        var next = clock.now
        while !Task.isCancelled {
            await body()
            next = max(next + interval, clock.now)
            do {
                try await clock.sleep(until: next)
            } catch {
                return
            }
        }
    }

    /// Takes the leader's answers to heartbeats.
    func listen(_ mailbox: Mailbox<WorkerEvent>) throws(NATSError) {
        let subscription = try context.connection.subscribe("\(inbox).*") { [weak self] message in
            // The stream of events answers too: with its PubAck, which says nothing about a leader.
            guard let answer = try? HeartbeatAnswer(parsing: message.payload) else { return }
            guard let sentAt = self?.state.withLock({ $0.sent.removeValue(forKey: answer.counter) }) else { return }
            mailbox.send(.heartbeatAnswered(sentAt: sentAt))
        }
        state.withLock { $0.answers = subscription }
    }

    func stopListening() { state.withLock { $0.answers.take() }?.cancel() }

    private var inbox: String { "_INBOX.\(context.incarnation).heartbeat" }

    /// Sends one heartbeat now, if the worker is ready. systemd's watchdog is fed only while the shell goes on: a worker
    /// that is stuck is started again.
    func beat() {
        let (beat, hasProgress) = state.withLock { state -> (Heartbeat?, Bool) in
            guard state.isReady else { return (nil, false) }
            state.counter += 1
            defer { state.hasProgress = false }
            // Before it is sent, so that the leader has received it later than that.
            state.sent[state.counter] = context.clock.now()
            if state.counter > Self.answerable { state.sent[state.counter - Self.answerable] = nil }
            let beat = Heartbeat(
                gpu: context.gpu,
                incarnation: context.incarnation,
                counter: state.counter,
                slots: slots,
                running: state.running,
                isDraining: state.isDraining,
                canFence: true,
                time: context.clock.now().seconds
            )
            return (beat, state.hasProgress)
        }
        guard let beat else { return }
        context.publish(beat.encoded(), on: context.names.heartbeat, replyTo: "\(inbox).\(beat.counter)")
        if hasProgress { notifier.keepAlive() }
    }
}
