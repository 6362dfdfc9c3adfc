import JobModel
import WireJSON

/// What is known of a card beyond what a placement looks at.
struct CardDetails: Sendable {
    var control: ControlState
    var probe = Probe()
    /// What its worker registered of it.
    var facts = JSONObject()
    /// The last reading of the card, of whatever life of its worker.
    var reading: CardReading?
    var history = CardHistory()
    /// What its worker last told of its cache, in its present life.
    var cache: CacheReport?
    /// What that cache holds.
    var cacheHolds: Set<CacheKey> = []
    /// Jobs that ended well on it since its probation began.
    var probationSuccesses = 0
    /// Signs of sickness are not heeded before: they were sent before the card was cleared.
    var heedsSignsFrom: Timestamp?
    /// When anything was last heard of it.
    var seenAt: Timestamp
    /// A deadline for forgetting it is in the queue.
    var isForgettingPlanned = false
    /// The word for its state, and since when it stands.
    var state = ""
    var stateSince: Timestamp

    struct Probe: Sendable {
        /// When the next one is asked for.
        var due: Timestamp?
        /// How long after a probe that found the card sick the next one comes.
        var pause = Duration.zero
        var isRunning = false
        /// What the last one found, for a person.
        var evidence: String?
    }

    init(id: GPUID, op: OperationID, at now: Timestamp) {
        control = ControlState(CardControl(gpu: id, op: op))
        seenAt = now
        stateSince = now
    }
}

/// The control record of a card as the leader holds it, with what it is about to write.
struct ControlState: Sendable {
    /// As it is stored.
    var stored: CardControl
    /// Where it stands in ORG_CTL; 0 when there is none.
    var sequence: UInt64 = 0
    /// When it was stored, on the core's clock.
    var storedAt: Timestamp?
    /// What is to become of it, in order.
    var changes: [Pending] = []
    /// The write under way, and how many of the changes it holds.
    var writing: Write?
    /// Nothing is written before: the stream refused the last write.
    var holdUntil: Timestamp?
    /// Why the stored record cannot be read, if it cannot: it is left alone, and the card with it.
    var unreadable: String?
    /// When the running attempts are taken from a card that is drained.
    var drainDue: Timestamp?

    struct Pending: Sendable {
        let change: ControlChange
        /// Whom to answer when it is stored; nil for what the leader decided by itself.
        let request: RequestToken?
    }

    struct Write: Sendable {
        let record: CardControl
        let count: Int
    }

    init(_ stored: CardControl) { self.stored = stored }

    /// The record as it will be when everything is stored.
    func wanted(policy: SchedulerPolicy, at now: Timestamp) -> CardControl {
        changes.reduce(into: stored) { $1.change.apply(to: &$0, policy: policy, at: now) }
    }
}
