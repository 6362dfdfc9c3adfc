import ServiceSupport
import Synchronization

/// Feeds systemd's watchdog, and only while the loop that does the work goes on: a maestro that is stuck is started again.
final class LoopWatchdog: Sendable {
    let notifier = ServiceNotifier()
    private let lastFed = Mutex(ContinuousClock.now)

    /// How often the loops must be given something to handle, so that an idle one shows that it is not stuck; nil when
    /// nobody watches.
    var interval: Duration? { notifier.watchdogInterval.map { $0 / 4 } }

    /// The loop has handled what there was.
    func noteProgress() {
        guard let interval else { return }
        let isDue = lastFed.withLock { last in
            guard ContinuousClock.now - last >= interval / 2 else { return false }
            last = .now
            return true
        }
        if isDue { notifier.keepAlive() }
    }

    /// Asks again and again until its task is cancelled.
    func run(_ ask: () -> Void) async {
        guard let interval else { return }
        while !Task.isCancelled {
            ask()
            do {
                try await Task.sleep(for: interval)
            } catch {
                return
            }
        }
    }
}
