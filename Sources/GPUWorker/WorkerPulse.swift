import JobModel
import Logging
import ServiceSupport
import Synchronization
import TaskRunner
import WireJSON

/// The rhythm of a worker: it tells that it lives and what it runs, and has its card looked at.
final class WorkerPulse: Sendable {
    private struct State {
        var counter: UInt64 = 0
        /// Earlier lives are closed: from here on heartbeats may say what runs, and what does not.
        var isReady = false
        var running: [Heartbeat.RunningAttempt] = []
        var isDraining = false
    }

    private let context: WorkerContext
    private let runner: TaskRunner
    private let notifier = ServiceNotifier()
    private let state = Mutex(State())

    init(context: WorkerContext, runner: TaskRunner) {
        self.context = context
        self.runner = runner
    }

    private var slots: Int { context.settings.settings[WorkerSettings.Keys.slots] }

    func note(running: [Heartbeat.RunningAttempt], isDraining: Bool) {
        state.withLock { state in
            state.running = running
            state.isDraining = isDraining
        }
    }

    /// Tells systemd, if it started this worker, that it is ready.
    func ready() {
        state.withLock { $0.isReady = true }
        notifier.ready()
    }

    func stopping() { notifier.stopping() }

    /// Beats and measures until its task is cancelled.
    func run(measure: @escaping @Sendable () async -> Void) async {
        let settings = context.settings.settings
        await withDiscardingTaskGroup { group in
            group.addTask { [self] in
                await Self.repeating(every: settings.duration(WorkerSettings.Keys.heartbeat)) {
                    beat()
                    runner.reapOrphans()
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

    /// Sends one heartbeat now, if the worker is ready.
    func beat() {
        let beat = state.withLock { state -> Heartbeat? in
            guard state.isReady else { return nil }
            state.counter += 1
            return Heartbeat(
                gpu: context.gpu,
                incarnation: context.incarnation,
                counter: state.counter,
                slots: slots,
                running: state.running,
                isDraining: state.isDraining,
                time: context.clock.now().seconds
            )
        }
        guard let beat else { return }
        context.publish(beat.encoded(), on: context.names.heartbeat)
        notifier.keepAlive()
    }
}
