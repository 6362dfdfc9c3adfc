import Dispatch
import Synchronization

/// The events on their way into a core: many senders, one receiver that takes all there are at once.
///
/// Bounded: a sender waits while the mailbox is full. Senders are event loops, timers and child tasks that report one
/// outcome each; the receiver never waits for any of them, so it always empties the mailbox. A receiver that runs on an event
/// loop empties it before that loop hears more, so what is sent to it need not wait.
package final class Mailbox<Event: Sendable>: Sendable {
    private struct State {
        var events: [Event] = []
        var receiver: CheckedContinuation<[Event], Never>?
        /// How many events the receiver waits for.
        var wanted = 1
        var isClosed = false
        var waitingSenders = 0
    }

    private let state = Mutex(State())
    private let room = DispatchSemaphore(value: 0)
    private let capacity: Int
    private let isOnLoop: Bool

    /// - Parameters:
    ///   - capacity: events that may wait; at least 1.
    ///   - isOnLoop: whether the receiver runs on the event loop whose handlers send to it.
    package init(capacity: Int = 8192, isOnLoop: Bool = false) {
        self.capacity = max(1, capacity)
        self.isOnLoop = isOnLoop
    }

    /// Hands an event over; waits while the mailbox is full. Only for threads outside the cooperative pool.
    package func send(_ event: Event) {
        while !isOnLoop {
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
        let ready = state.withLock { state -> (receiver: CheckedContinuation<[Event], Never>, batch: [Event])? in
            guard !state.isClosed else { return nil }
            state.events.append(event)
            guard state.events.count >= state.wanted, let receiver = state.receiver.take() else { return nil }
            defer { state.events = [] }
            return (receiver, state.events)
        }
        if let ready { ready.receiver.resume(returning: ready.batch) }
    }

    /// Everything that has arrived, in order; waits until there is something. Empty once the mailbox is closed.
    /// Only one task may receive.
    /// - Parameter wanted: how many events to wait for; they must be sure to come, and fit in.
    package func receive(atLeast wanted: Int = 1) async -> [Event] {
        await withCheckedContinuation { continuation in
            let (batch, senders) = state.withLock { state -> ([Event]?, Int) in
                if state.events.count < wanted && !state.isClosed {
                    state.wanted = wanted
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
        let (receiver, rest, senders) = state.withLock {
            state -> (CheckedContinuation<[Event], Never>?, [Event], Int) in
            state.isClosed = true
            defer { state.waitingSenders = 0 }
            guard let receiver = state.receiver.take() else { return (nil, [], state.waitingSenders) }
            defer { state.events = [] }
            return (receiver, state.events, state.waitingSenders)
        }
        for _ in 0..<senders { room.signal() }
        receiver?.resume(returning: rest)
    }
}
