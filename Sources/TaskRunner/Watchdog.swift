import CProcess
import EventLoop
import Glibc
import Synchronization

/// When a task has to end, whatever becomes of the process that has started it.
package struct WatchdogOrder: Sendable, Equatable {
    /// When it is sent SIGTERM, in nanoseconds of CLOCK_BOOTTIME.
    package var deadline: Int64
    /// From then to SIGKILL.
    package var grace: Duration

    package init(deadline: Int64, grace: Duration) {
        self.deadline = deadline
        self.grace = grace
    }

    fileprivate var graceNanoseconds: Int64 {
        let (seconds, attoseconds) = grace.components
        return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}

/// A process of its own that ends a task at its deadline, also when this process is stopped, and at once when it is dead.
///
/// It finds what belongs to the task by the attempt's variable, by its session, and by descent. What has left the session,
/// cleared its environment and been orphaned it cannot tell from anything else.
final class Watchdog: Sendable {
    let pid: Int32
    private let process: Descriptor
    private let control: Descriptor
    private let state: Mutex<State>

    private struct State {
        var order: WatchdogOrder
        /// 0 until the task's process is there.
        var leader: Int32 = 0
        var token: EventLoop.Token?
        var isEnded = false
    }

    /// - Parameter marker: `NAME=value`, in the environment of every process of the task and of no other.
    ///
    /// Throws `resources`.
    init(marker: String, _ order: WatchdogOrder) throws(TaskRunnerError) {
        var made = cprocess_watchdog()
        let error = unsafe cprocess_watchdog_start(marker, order.deadline, order.graceNanoseconds, &made)
        guard error == 0 else {
            throw TaskRunnerError(.resources, "cannot start the watchdog of a task", cause: Errno(error))
        }
        pid = made.pid
        process = Descriptor(owning: made.pidfd)
        control = Descriptor(owning: made.control)
        state = Mutex(State(order: order))
    }

    /// The process that it is for.
    func guards(_ leader: Int32) {
        state.withLock { state in
            state.leader = leader
            send(state)
        }
    }

    func take(_ order: WatchdogOrder) {
        state.withLock { state in
            state.order = order
            send(state)
        }
    }

    /// An order that cannot be sent leaves the earlier deadline standing: the task ends too early, and never too late.
    private func send(_ state: State) {
        guard !state.isEnded else { return }
        _ = cprocess_watchdog_order(
            control.number,
            state.leader,
            state.order.deadline,
            state.order.graceNanoseconds
        )
    }

    /// Calls back, on the loop's thread, when the watchdog has died before it was ended.
    func watch(on loop: EventLoop, onDeath: @escaping @Sendable () -> Void) throws(Errno) {
        let token = loop.makeToken()
        state.withLock { $0.token = token }
        try loop.watch(process.number, as: token) { [self] in
            loop.unwatch(token, descriptor: process.number)
            if !state.withLock({ $0.isEnded }) { onDeath() }
        }
    }

    /// Nothing of the task is left. Idempotent.
    func end(on loop: EventLoop) {
        let (wasEnded, token) = state.withLock { state in
            defer { state.isEnded = true }
            return (state.isEnded, state.token.take())
        }
        guard !wasEnded else { return }
        if let token { loop.unwatch(token, descriptor: process.number) }
        cprocess_watchdog_end(process.number)
    }
}
