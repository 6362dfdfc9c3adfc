import EventLoop
import Synchronization

/// The one timer of a shell: fires once at the last deadline it was armed for.
///
/// A core arms it for nearly every job and seldom needs it. So the loop is not asked again for a deadline that is later than
/// the one it knows, nor when the timer is disarmed: it wakes up once for nothing, and looks what is wanted then.
package final class DeadlineTimer: Sendable {
    private struct State {
        /// When the owner is to be told; nil: not at all.
        var wanted: ContinuousClock.Instant?
        /// When the loop wakes the timer up; nil: not at all.
        var armed: (at: ContinuousClock.Instant, token: EventLoop.Token)?
    }

    private let state = Mutex(State())
    private let loop: EventLoop
    private let fire: @Sendable () -> Void

    /// - Parameter fire: called on the loop.
    package init(on loop: EventLoop, fire: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.fire = fire
    }

    deinit { cancel() }

    /// Fires after `delay` from now, in place of any earlier arming; nil disarms.
    package func arm(after delay: Duration?) {
        let due = delay.map { ContinuousClock.now + $0 }
        state.withLock { state in
            state.wanted = due
            if let due, state.armed.map({ $0.at > due }) ?? true { set(due, &state) }
        }
    }

    private func set(_ due: ContinuousClock.Instant, _ state: inout State) {
        if let armed = state.armed { loop.cancel(armed.token) }
        state.armed = (
            due, loop.schedule(after: ContinuousClock.now.duration(to: due)) { [weak self] in self?.wakeUp() }
        )
    }

    private func wakeUp() {
        let now = ContinuousClock.now
        let isDue = state.withLock { state in
            state.armed = nil
            guard let wanted = state.wanted else { return false }
            if wanted > now {
                set(wanted, &state)
                return false
            }
            state.wanted = nil
            return true
        }
        if isDue { fire() }
    }

    /// Never fires again.
    package func cancel() {
        state.withLock { state in
            state.wanted = nil
            if let armed = state.armed.take() { loop.cancel(armed.token) }
        }
    }
}
