import Dispatch
import Synchronization

/// The events on their way into a core: many senders, one receiver that takes all there are at once.
///
/// Bounded: a sender waits while the mailbox is full. Senders are threads of the NATS library, timers and child tasks
/// that report one outcome each; the receiver never waits for any of them, so it always empties the mailbox.
package final class Mailbox<Event: Sendable>: Sendable {
    private struct State {
        var events: [Event] = []
        var receiver: CheckedContinuation<[Event], Never>?
        var isClosed = false
        var waitingSenders = 0
    }

    private let state = Mutex(State())
    private let room = DispatchSemaphore(value: 0)
    private let capacity: Int

    /// - Parameter capacity: events that may wait; at least 1.
    package init(capacity: Int = 8192) {
        self.capacity = max(1, capacity)
    }

    /// Hands an event over; waits while the mailbox is full. Only for threads outside the cooperative pool.
    package func send(_ event: Event) {
        while true {
            let accepted = state.withLock { state in
                guard state.events.count >= capacity, !state.isClosed else { return true }
                state.waitingSenders += 1
                return false
            }
            if accepted { break }
            room.wait()
        }
        deliver(event)
    }

    /// Hands over the outcome of an action. Never waits: a core has a bounded number of actions under way.
    package func sendOutcome(_ event: Event) {
        deliver(event)
    }

    private func deliver(_ event: Event) {
        let receiver = state.withLock { state -> CheckedContinuation<[Event], Never>? in
            guard !state.isClosed else { return nil }
            guard let receiver = state.receiver else {
                state.events.append(event)
                return nil
            }
            state.receiver = nil
            return receiver
        }
        receiver?.resume(returning: [event])
    }

    /// Everything that has arrived, in order; waits until there is something. Empty once the mailbox is closed.
    /// Only one task may receive.
    package func receive() async -> [Event] {
        await withCheckedContinuation { continuation in
            let (batch, senders) = state.withLock { state -> ([Event]?, Int) in
                if state.events.isEmpty && !state.isClosed {
                    state.receiver = continuation
                    return (nil, 0)
                }
                let senders = state.waitingSenders
                state.waitingSenders = 0
                let batch = state.events
                state.events = []
                return (batch, senders)
            }
            for _ in 0..<senders { room.signal() }
            if let batch { continuation.resume(returning: batch) }
        }
    }

    /// Ends the mailbox: what waits in it can still be received, new events are dropped, senders go on.
    package func close() {
        let (receiver, senders) = state.withLock { state in
            state.isClosed = true
            defer {
                state.receiver = nil
                state.waitingSenders = 0
            }
            return (state.receiver, state.waitingSenders)
        }
        for _ in 0..<senders { room.signal() }
        receiver?.resume(returning: [])
    }
}
