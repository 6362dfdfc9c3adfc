import Dispatch
import Synchronization

/// The events on their way into a core: many senders, one receiver that takes all there are at once.
///
/// Bounded: a sender waits while the mailbox is full. Senders are event loops, timers and child tasks that report one
/// outcome each; the receiver never waits for any of them, so it always empties the mailbox. A receiver that runs on the event
/// loop whose handlers send to it empties it before that loop hears more, so they need not wait: ``receiverRuns(onLoop:)``.
///
/// Public and inlinable, because only so does the compiler make a version of it for each kind of event: every event of a
/// program passes through here, and the general version took 6 % of maestro's time.
public final class Mailbox<Event: Sendable>: Sendable {
    @usableFromInline
    struct State {
        @usableFromInline var events: [Event] = []
        @usableFromInline var receiver: CheckedContinuation<[Event], Never>?
        /// How many events the receiver waits for.
        @usableFromInline var wanted = 1
        @usableFromInline var isClosed = false
        @usableFromInline var waitingSenders = 0
        @usableFromInline var isOnLoop = false

        @inlinable
        init() {}

        @inlinable
        func hasRoom(of capacity: Int) -> Bool { events.count < capacity || isOnLoop || isClosed }

        /// - Returns: the receiver, if it waits and has enough now, with all there is.
        @inlinable
        mutating func take() -> (receiver: CheckedContinuation<[Event], Never>, batch: [Event])? {
            guard events.count >= wanted, let receiver = receiver.take() else { return nil }
            defer { events = [] }
            return (receiver, events)
        }

        /// - Returns: how many senders may go on.
        @inlinable
        mutating func releaseSenders() -> Int {
            defer { waitingSenders = 0 }
            return waitingSenders
        }
    }

    @usableFromInline let state = Mutex(State())
    @usableFromInline let room = DispatchSemaphore(value: 0)
    @usableFromInline let capacity: Int

    /// - Parameter capacity: events that may wait; at least 1.
    @inlinable
    public init(capacity: Int = 8192) { self.capacity = max(1, capacity) }

    /// From now on the receiver runs on the event loop whose handlers send to it, or elsewhere as at first. To be called where
    /// it does not run on that loop: its handlers may be waiting.
    @inlinable
    public func receiverRuns(onLoop isOnLoop: Bool) {
        let senders = state.withLock { state in
            state.isOnLoop = isOnLoop
            return state.releaseSenders()
        }
        for _ in 0..<senders { room.signal() }
    }

    /// Hands an event over; waits while the mailbox is full. Only for threads outside the cooperative pool.
    @inlinable
    public func send(_ event: Event) {
        waitForRoom()
        sendOutcome(event)
    }

    /// The same for several, which stay together.
    @inlinable
    public func send(contentsOf events: [Event]) {
        waitForRoom()
        let ready = state.withLock { state in
            if !state.isClosed { state.events += events }
            return state.take()
        }
        if let ready { ready.receiver.resume(returning: ready.batch) }
    }

    @inlinable
    func waitForRoom() {
        while true {
            let hasRoom = state.withLock { state in
                let hasRoom = state.hasRoom(of: capacity)
                if !hasRoom { state.waitingSenders += 1 }
                return hasRoom
            }
            if hasRoom { return }
            room.wait()
        }
    }

    /// Hands over the outcome of an action. Never waits: a core has a bounded number of actions under way.
    @inlinable
    public func sendOutcome(_ event: Event) {
        let ready = state.withLock { state in
            if !state.isClosed { state.events.append(event) }
            return state.take()
        }
        if let ready { ready.receiver.resume(returning: ready.batch) }
    }

    /// Everything that has arrived, in order; waits until there is something. Empty once the mailbox is closed.
    /// Only one task may receive.
    /// - Parameter wanted: how many events to wait for; they must be sure to come, and fit in.
    @inlinable
    public func receive(atLeast wanted: Int = 1) async -> [Event] {
        await withCheckedContinuation { continuation in
            let (batch, senders) = state.withLock { state -> ([Event]?, Int) in
                if state.events.count < wanted && !state.isClosed {
                    state.wanted = wanted
                    state.receiver = continuation
                    return (nil, 0)
                }
                defer { state.events = [] }
                return (state.events, state.releaseSenders())
            }
            for _ in 0..<senders { room.signal() }
            if let batch { continuation.resume(returning: batch) }
        }
    }

    /// Ends the mailbox: what waits in it can still be received, new events are dropped, senders go on.
    @inlinable
    public func close() {
        let (receiver, rest, senders) = state.withLock {
            state -> (CheckedContinuation<[Event], Never>?, [Event], Int) in
            state.isClosed = true
            guard let receiver = state.receiver.take() else { return (nil, [], state.releaseSenders()) }
            defer { state.events = [] }
            return (receiver, state.events, state.releaseSenders())
        }
        for _ in 0..<senders { room.signal() }
        receiver?.resume(returning: rest)
    }
}
