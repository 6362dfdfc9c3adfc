import Dispatch

/// A one-shot timer that can be set again and again. Late calls of the handler are possible: the handler looks at the
/// clock and at its own state.
///
/// Unchecked: a dispatch source takes calls from any thread, and the property never changes.
final class Alarm: @unchecked Sendable {
    private let source: any DispatchSourceTimer

    init(label: String) {
        source = DispatchSource.makeTimerSource(queue: DispatchQueue(label: label))
        source.schedule(deadline: .distantFuture)
        source.activate()
    }

    /// What to do when it rings. To be called once, before the first `set`.
    func onRing(_ handler: @escaping @Sendable () -> Void) { source.setEventHandler(handler: handler) }

    deinit { source.cancel() }

    /// Rings once at a time of ``MonotonicClock``; replaces what was set before. At once if the time has passed.
    func set(at time: UInt64) {
        let now = MonotonicClock.now
        let wait = time > now ? min(time - now, UInt64(Int32.max) * 1_000_000) : 0
        source.schedule(deadline: .now() + .nanoseconds(Int(wait)), leeway: .milliseconds(1))
    }

    /// Never rings again.
    func cancel() { source.cancel() }
}
