import Dispatch
import Synchronization

/// Calls that a sick driver may never return from.
enum Bounded {
    private final class Outcome<Value: Sendable>: Sendable {
        let value = Mutex<Value?>(nil)
        let isThere = DispatchSemaphore(value: 0)
    }

    /// Runs the body on a thread of its own; nil when it has not come back in time. Blocks the caller.
    static func call<Value: Sendable>(within deadline: Duration, _ body: @escaping @Sendable () -> Value) -> Value? {
        let outcome = Outcome<Value>()
        let hasBegun = Thread.start {
            let value = body()
            outcome.value.withLock { $0 = value }
            outcome.isThere.signal()
        }
        let milliseconds = Int(deadline / .milliseconds(1))
        guard hasBegun, outcome.isThere.wait(timeout: .now() + .milliseconds(milliseconds)) == .success else {
            return nil
        }
        return outcome.value.withLock { $0 }
    }
}
