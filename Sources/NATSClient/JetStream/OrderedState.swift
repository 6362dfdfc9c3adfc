/// Where an ordered consumer starts.
package enum DeliverPolicy: Sendable, Equatable {
    /// The last message of every subject, then everything new.
    case lastPerSubject
    /// Only what comes from now on.
    case new
    /// Everything from a sequence on.
    case byStartSequence(UInt64)
    /// Everything from a time of the server's clock on, in the form of RFC 3339.
    case byStartTime(String)
    /// Everything that the stream holds.
    case all
}

/// What an ordered consumer tells its owner, in order.
package enum OrderedConsumerEvent: Sendable {
    /// A message, and how many the server believes to come behind it: a hint, not a promise.
    case message(StoredMessage, pending: UInt64)
    /// Everything that matched when the stream was looked at has been handed over: all up to this sequence. Comes
    /// again after each `recreated`.
    case caughtUp(lastStreamSequence: UInt64)
    /// The consumer was made anew behind the last message handed over, except after `streamRolledBack`: then it starts
    /// as at the beginning, and what was handed over before may never have been.
    case recreated(RecreateReason)
    /// The consumer could not be made; tried again until it can.
    case failed(JetStreamError)
}

package enum RecreateReason: Sendable, Equatable {
    /// A message was missing between two others.
    case gap
    /// The server said nothing for two heartbeats.
    case missedHeartbeats
    case reconnected
    /// The stream ends before the last message handed over: it was deleted or its server lost data.
    case streamRolledBack
}

/// Decides what an ordered consumer does. Pure: events in, actions out, time in nanoseconds from outside.
///
/// A generation is one consumer at the server with its own inbox; whatever comes from an earlier one is ignored.
struct OrderedState {
    enum Event {
        case connected
        case disconnected
        /// The consumer stands; `start` is the stream sequence that it starts behind.
        case created(generation: UInt64, start: UInt64, pending: UInt64)
        case createFailed(generation: UInt64)
        /// The stream's last sequence is below what was handed over.
        case rolledBack(generation: UInt64)
        case message(generation: UInt64, consumerSequence: UInt64, streamSequence: UInt64, pending: UInt64)
        case heartbeat(generation: UInt64, lastConsumerSequence: UInt64?)
        /// The sequence of the last message in the stream that matches the filter; 0 for none.
        case sampled(generation: UInt64, lastSequence: UInt64)
        case sampleFailed(generation: UInt64)
        case timePassed
    }

    enum Action: Equatable {
        case create(generation: UInt64, DeliverPolicy, knownSequence: UInt64?)
        /// Look up the last matching message.
        case sample(generation: UInt64)
        /// Hand over the message that this event brought.
        case deliver
        case reportRecreated(RecreateReason)
        case reportCaughtUp(UInt64)
    }

    private enum Phase: Equatable {
        case disconnected
        case pausing(until: UInt64)
        case creating
        case running
    }

    private let policy: DeliverPolicy
    private let heartbeat: UInt64
    private var phase = Phase.disconnected
    private var generation: UInt64 = 0
    private var consumerSequence: UInt64 = 0
    /// The last message handed over; nil before the first.
    private var position: UInt64?
    /// All up to here is handed over or was not asked for.
    private var floor: UInt64 = 0
    private var lastHeard: UInt64 = 0
    private var failures = 0
    private var hasRun = false
    private var reason = RecreateReason.reconnected
    /// The owner has to be told that it starts over.
    private var rolledBack = false

    private enum CatchUp: Equatable { case looking, sampling, waiting(for: UInt64), done }
    private var catchUp = CatchUp.looking

    init(policy: DeliverPolicy, heartbeat: UInt64) {
        self.policy = policy
        self.heartbeat = heartbeat
    }

    /// When `timePassed` is due, if nothing else happens before.
    var wakeTime: UInt64? {
        switch phase {
        case .disconnected, .creating: nil
        case .pausing(let end): end
        case .running: silenceEnd
        }
    }

    private var silenceEnd: UInt64 { lastHeard + heartbeat * 5 / 2 }

    mutating func handle(_ event: Event, at now: UInt64) -> [Action] {
        switch event {
        case .connected:
            if phase != .disconnected { return [] }
            return create(.reconnected)
        case .disconnected:
            phase = .disconnected
            generation += 1
            return []
        case .created(let number, let start, let pending):
            guard number == generation, phase == .creating || phase == .running else { return [] }
            floor = max(floor, start)
            return runs(at: now) + (pending == 0 && catchUp == .looking ? look() : [])
        case .createFailed(let number):
            guard number == generation, phase == .creating else { return [] }
            phase = .pausing(until: now + 250_000_000 << min(UInt64(failures), 4))
            failures += 1
            return []
        case .rolledBack(let number):
            guard number == generation, phase == .creating else { return [] }
            position = nil
            floor = 0
            rolledBack = true
            return create(.streamRolledBack)
        case .message(let number, let consumerSequence, let streamSequence, let pending):
            guard number == generation, phase == .creating || phase == .running else { return [] }
            return arrived(consumerSequence, streamSequence, pending, at: now)
        case .heartbeat(let number, let lastConsumerSequence):
            guard number == generation, phase == .running else { return [] }
            lastHeard = now
            if let last = lastConsumerSequence, last != consumerSequence { return create(.gap) }
            return look()
        case .sampled(let number, let lastSequence):
            guard number == generation, phase == .running, catchUp == .sampling else { return [] }
            catchUp = .waiting(for: lastSequence)
            return checkCaughtUp()
        case .sampleFailed(let number):
            if number == generation, catchUp == .sampling { catchUp = .looking }
            return []
        case .timePassed: return checkTime(now)
        }
    }

    private mutating func create(_ reason: RecreateReason) -> [Action] {
        phase = .creating
        generation += 1
        consumerSequence = 0
        catchUp = .looking
        self.reason = reason
        let start = position.map { DeliverPolicy.byStartSequence($0 + 1) } ?? policy
        return [.create(generation: generation, start, knownSequence: position)]
    }

    /// The first sign that the consumer stands: the answer to its creation or its first message.
    private mutating func runs(at now: UInt64) -> [Action] {
        lastHeard = now
        if phase == .running { return [] }
        phase = .running
        failures = 0
        let report: [Action] = hasRun ? [.reportRecreated(rolledBack ? .streamRolledBack : reason)] : []
        hasRun = true
        rolledBack = false
        return report
    }

    private mutating func arrived(
        _ consumerSequence: UInt64,
        _ streamSequence: UInt64,
        _ pending: UInt64,
        at now: UInt64
    ) -> [Action] {
        let actions = runs(at: now)
        guard consumerSequence == self.consumerSequence + 1 else { return actions + create(.gap) }
        self.consumerSequence = consumerSequence
        // 2.9.10 sends the next message once for every record that was replaced during a replay of last records.
        if let position, streamSequence <= position {
            return actions + (pending == 0 && catchUp == .looking ? look() : [])
        }
        position = streamSequence
        floor = max(floor, streamSequence)
        return actions + [.deliver] + checkCaughtUp() + (pending == 0 && catchUp == .looking ? look() : [])
    }

    /// The server seems to have no more: see what the last message is that belongs here. Its own count reaches 0 while
    /// writers go on, so the count alone proves nothing.
    private mutating func look() -> [Action] {
        switch catchUp {
        case .sampling, .done: return []
        // A message that was waited for may have been deleted meanwhile.
        case .looking, .waiting:
            catchUp = .sampling
            return [.sample(generation: generation)]
        }
    }

    private mutating func checkCaughtUp() -> [Action] {
        guard case .waiting(let sequence) = catchUp, floor >= sequence else { return [] }
        catchUp = .done
        return [.reportCaughtUp(floor)]
    }

    private mutating func checkTime(_ now: UInt64) -> [Action] {
        switch phase {
        case .pausing(let end) where end <= now: create(reason)
        case .running where silenceEnd <= now: create(.missedHeartbeats)
        default: []
        }
    }
}
