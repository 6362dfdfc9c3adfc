import JobModel
import Logging
import Synchronization
import WireJSON

/// Tells every HEARTBEAT_SEC on `maestro.heartbeat` that the leader lives, and how much there is to do.
final class Pulse: Sendable {
    private struct Counts {
        var alive = 0
        var queueSize = 0
        var inflight = 0
    }

    private let context: MaestroContext
    private let counts = Mutex(Counts())

    init(context: MaestroContext) { self.context = context }

    func note(alive: Int, queueSize: Int, inflight: Int) {
        counts.withLock { $0 = Counts(alive: alive, queueSize: queueSize, inflight: inflight) }
    }

    /// Beats until its task is cancelled.
    func run() async {
        let clock = ContinuousClock()
        var next = clock.now
        while !Task.isCancelled {
            beat()
            next += context.settings.heartbeat
            do {
                try await clock.sleep(until: next)
            } catch {
                return
            }
        }
    }

    private func beat() {
        let counts = counts.withLock { $0 }
        let body: JSON = [
            "alive": true, "gpus_seen": .int(counts.alive), "qsize": .int(counts.queueSize),
            "inflight": .int(counts.inflight), "incarnation": .string(context.incarnation.text),
            "ts": .double(context.clock.now().seconds),
        ]
        context.tell(body.encoded(), on: context.names.maestroEvent("heartbeat"))
    }
}
