import Dispatch
import JobModel
import Synchronization

/// The one timer of a shell: fires once at the last deadline it was armed for.
///
/// A core arms it for nearly every job and seldom needs it. So the system's timer is not set again for a deadline that is
/// later than the one it stands at, nor when it is disarmed: it wakes up once for nothing, and looks what is wanted then.
package final class DeadlineTimer: Sendable {
    private struct State: ~Copyable {
        let source: any DispatchSourceTimer
        /// When the owner is to be told; nil: not at all.
        var wanted: DispatchTime?
        /// When the source wakes up; nil: not at all.
        var armed: DispatchTime?

        mutating func set(_ time: DispatchTime) {
            armed = time
            source.schedule(deadline: time, leeway: .milliseconds(1))
        }
    }

    private let state: Mutex<State>
    private let fire: @Sendable () -> Void

    /// - Parameter fire: called on a thread of the timer's own queue, which it may block.
    package init(label: String, fire: @escaping @Sendable () -> Void) {
        self.fire = fire
        state = Mutex(State(source: DispatchSource.makeTimerSource(queue: DispatchQueue(label: label))))
        state.withLock { state in
            state.source.setEventHandler { [weak self] in self?.wakeUp() }
            state.source.schedule(deadline: .distantFuture)
            state.source.activate()
        }
    }

    deinit { state.withLock { $0.source.cancel() } }

    /// Fires after `delay` from now, in place of any earlier arming; nil disarms.
    package func arm(after delay: Duration?) {
        let now = DispatchTime.now()
        state.withLock { state in
            let due = delay.map { now + .nanoseconds(Int(clamping: max(0, $0.wholeNanoseconds))) }
            state.wanted = due
            if let due, state.armed.map({ $0 > due }) ?? true { state.set(due) }
        }
    }

    private func wakeUp() {
        let now = DispatchTime.now()
        let isDue = state.withLock { state in
            state.armed = nil
            guard let wanted = state.wanted else { return false }
            if wanted > now {
                state.set(wanted)
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
            state.source.cancel()
        }
    }
}
