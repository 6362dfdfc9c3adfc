import Synchronization

/// The requests that wait for an answer, and the one timer that ends them at their deadlines.
///
/// A request's number goes out as the last token of its reply subject and comes back with the answer. It names a slot
/// and carries a serial, so that an answer to an earlier user of the slot finds nothing. Each completion is called
/// exactly once: by the answer, at the deadline, at the loss of the connection, or not at all after `withdraw`.
final class RequestTable: Sendable {
    /// Called on a delivery, timer or lifecycle thread; must not block.
    typealias Completion = @Sendable (Result<RawMessage, NATSError>) -> Void

    static let maximumSlots = 1 << slotBits
    private static let slotBits: UInt64 = 20

    private struct Slot {
        /// 0 while the slot is free.
        var number: UInt64 = 0
        /// Of the inbox that its answer comes to.
        var inbox: UInt = 0
        var operation: StaticString = ""
        var subject = ""
        var completion: Completion?
    }

    private struct State {
        var slots: [Slot] = []
        var free: [Int] = []
        var deadlines = DeadlineHeap()
        var live = 0
        var serial: UInt64 = 0
        /// When the alarm will ring; nil while it is not set.
        var alarmTime: UInt64?
        var doubt: Doubt?
    }

    /// Somebody does not listen: one of these requests, of which all others will soon be answered.
    private struct Doubt {
        let inbox: UInt
        let lastSerial: UInt64
        /// It was heard again since, so later requests may be meant too.
        var isRepeated = false
    }

    /// How long the others have to be answered, in nanoseconds. An answer of JetStream takes a few milliseconds; ended too
    /// early, a request is one whose outcome is not known.
    private static let doubtTime: UInt64 = 250_000_000

    private let limit: Int
    private let state = Mutex(State())
    private let alarm = Alarm(label: "nats.requests")
    private let doubtAlarm = Alarm(label: "nats.doubt")

    init(limit: Int) {
        self.limit = limit
        alarm.onRing { [weak self] in self?.expire() }
        doubtAlarm.onRing { [weak self] in self?.endDoubt() }
    }

    deinit {
        alarm.cancel()
        doubtAlarm.cancel()
    }

    var count: Int { state.withLock { $0.live } }

    /// Enters a request and returns its number. To be called before the request is sent, so that no answer and no loss
    /// of the connection can be missed.
    func add(
        _ operation: StaticString,
        _ subject: String,
        inbox: UInt,
        deadline: UInt64,
        completion: @escaping Completion
    ) throws(NATSError) -> UInt64 {
        let number = state.withLock { state -> UInt64? in
            let index: Int
            if let free = state.free.popLast() {
                index = free
            } else {
                if state.slots.count >= limit { return nil }
                index = state.slots.count
                state.slots.append(Slot())
            }
            state.serial += 1
            let number = state.serial << Self.slotBits | UInt64(index)
            state.slots[index] = Slot(
                number: number,
                inbox: inbox,
                operation: operation,
                subject: subject,
                completion: completion
            )
            state.live += 1
            state.deadlines.add(DeadlineHeap.Entry(deadline: deadline, number: number))
            compact(&state)
            if deadline < state.alarmTime ?? .max { setAlarm(&state) }
            return number
        }
        guard let number else {
            throw NATSError(.tooManyRequests, operation.description, subject: subject, cause: "the limit is \(limit)")
        }
        return number
    }

    /// Takes back a request that was not sent. False if it has been completed already.
    func withdraw(_ number: UInt64) -> Bool { take(number) != nil }

    func complete(_ number: UInt64, _ message: RawMessage) {
        take(number)?.completion?(.success(message))
    }

    // MARK: nobody listens

    /// Ends the requests of an inbox: nobody listens.
    /// - Parameter lastSerial: only those up to this one.
    func refuse(of inbox: UInt, through lastSerial: UInt64 = .max) {
        let refused = state.withLock { state -> [Slot] in
            let refused = state.slots.filter {
                $0.number != 0 && $0.inbox == inbox && $0.number >> Self.slotBits <= lastSerial
            }
            for slot in refused { release(slot.number, &state) }
            return refused
        }
        for slot in refused { fail(slot, .noResponders, cause: "nobody takes this subject, or JetStream is off") }
    }

    /// Nobody listens where one of the requests of an inbox went, and it is not known which.
    func doubt(of inbox: UInt) {
        state.withLock { state in
            if state.doubt != nil {
                state.doubt?.isRepeated = true
            } else {
                state.doubt = Doubt(inbox: inbox, lastSerial: state.serial)
                doubtAlarm.set(at: MonotonicClock.now + Self.doubtTime)
            }
        }
    }

    private func endDoubt() {
        guard let doubt = state.withLock({ $0.doubt.take() }) else { return }
        refuse(of: doubt.inbox, through: doubt.lastSerial)
        if doubt.isRepeated { self.doubt(of: doubt.inbox) }
    }

    // MARK: the end

    /// Ends every request: what happened to them is unknown.
    func failAll(_ code: NATSError.Code, cause: String?) {
        let taken = state.withLock { state -> [Slot] in
            let taken = state.slots.filter { $0.number != 0 }
            for slot in taken { release(slot.number, &state) }
            state.deadlines = DeadlineHeap()
            return taken
        }
        for slot in taken { fail(slot, code, cause: cause) }
    }

    private func fail(_ slot: Slot, _ code: NATSError.Code, cause: String?) {
        slot.completion?(.failure(NATSError(code, slot.operation.description, subject: slot.subject, cause: cause)))
    }

    private func take(_ number: UInt64) -> Slot? {
        state.withLock { state in
            guard isLive(number, state) else { return nil }
            let slot = state.slots[Self.index(number)]
            release(number, &state)
            return slot
        }
    }

    private static func index(_ number: UInt64) -> Int { Int(number & (UInt64(maximumSlots) - 1)) }

    private func isLive(_ number: UInt64, _ state: State) -> Bool {
        let index = Self.index(number)
        return number != 0 && index < state.slots.count && state.slots[index].number == number
    }

    private func release(_ number: UInt64, _ state: inout State) {
        let index = Self.index(number)
        state.slots[index] = Slot()
        state.free.append(index)
        state.live -= 1
    }

    /// Answered requests leave their deadlines behind; they go when they are most of the heap.
    private func compact(_ state: inout State) {
        if state.deadlines.count <= 2 * state.live + 1024 { return }
        let slots = state.slots
        state.deadlines.keep { slots[Self.index($0.number)].number == $0.number }
    }

    private func setAlarm(_ state: inout State) {
        state.alarmTime = state.deadlines.first?.deadline
        if let time = state.alarmTime { alarm.set(at: time) }
    }

    private func expire() {
        let now = MonotonicClock.now
        let expired = state.withLock { state -> [Slot] in
            var expired: [Slot] = []
            while let first = state.deadlines.first {
                let live = isLive(first.number, state)
                if live && first.deadline > now { break }
                state.deadlines.removeFirst()
                if !live { continue }
                expired.append(state.slots[Self.index(first.number)])
                release(first.number, &state)
            }
            setAlarm(&state)
            return expired
        }
        for slot in expired { fail(slot, .timeout, cause: "no answer before the deadline") }
    }
}
