import Dispatch
import JobModel
import Synchronization

/// The one timer of a shell: fires once at the last deadline it was armed for.
package final class DeadlineTimer: Sendable {
    private struct State: ~Copyable {
        let source: any DispatchSourceTimer
    }

    private let state: Mutex<State>

    /// - Parameter fire: called on a thread of the timer's own queue, which it may block.
    package init(label: String, fire: @escaping @Sendable () -> Void) {
        let source = DispatchSource.makeTimerSource(queue: DispatchQueue(label: label))
        source.setEventHandler(handler: fire)
        source.schedule(deadline: .distantFuture)
        source.activate()
        state = Mutex(State(source: source))
    }

    /// Fires after `delay` from now, in place of any earlier arming; nil disarms.
    package func arm(after delay: Duration?) {
        state.withLock { state in
            guard let delay else { return state.source.schedule(deadline: .distantFuture) }
            let nanoseconds = Int(clamping: max(0, delay.wholeNanoseconds))
            state.source.schedule(deadline: .now() + .nanoseconds(nanoseconds), leeway: .milliseconds(1))
        }
    }

    /// Never fires again.
    package func cancel() {
        state.withLock { $0.source.cancel() }
    }
}
