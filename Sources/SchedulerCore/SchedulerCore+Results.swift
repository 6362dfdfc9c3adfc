import JobModel

/// Which results are still to be told.
struct ResultLedger: Sendable {
    struct Awaited: Sendable {
        /// Where the terminal record stands in ORG_JOBS.
        let sequence: UInt64
        let event: ResultEvent
    }

    var awaited: [JobID: Awaited] = [:]
    /// The highest sequence of ORG_JOBS that was seen in order.
    var observed: UInt64 = 0
    /// Terminal revisions that an answer told of before the stream delivered them.
    var endedAhead: Set<UInt64> = []
    /// Every terminal record up to here has its result event; as stored.
    var place: UInt64 = 0
    /// A place that is to be stored when its results are surely on the server's disk, and since when it was reached.
    var reached: (place: UInt64, at: Timestamp)?
    var isStorePlanned = false

    /// The place as it could be stored now.
    var currentPlace: UInt64 {
        awaited.values.map { $0.sequence - 1 }.min().map { min($0, observed) } ?? observed
    }
}

/// Each job's result, once: the worker that ended a job tells it, the leader tells the rest.
extension SchedulerCore {
    mutating func expectResult(_ revision: RecordRevision, isOurs: Bool, isSeen: Bool = false, at now: Timestamp) {
        let record = revision.record
        planStorePlace(at: now)
        guard !isSeen else { return }
        let event = ResultEvent(
            job: record.id,
            state: record.state,
            tries: record.tries,
            outcome: record.outcome,
            time: record.times.ended ?? record.times.updated
        )
        results.awaited[record.id] = ResultLedger.Awaited(sequence: revision.sequence, event: event)
        if isOurs {
            actions.append(.publishResult(event, checkFirst: false))
        } else {
            deadlines.insert(.result(record.id), at: now + policy.resultGrace)
        }
    }

    mutating func settleResult(_ id: JobID, at now: Timestamp) {
        jobs[id]?.resultSeen = true
        guard results.awaited.removeValue(forKey: id) != nil else { return }
        planStorePlace(at: now)
    }

    /// The worker had its time: what it has not told, the leader does.
    mutating func publishMissingResult(_ id: JobID) {
        guard let awaited = results.awaited[id] else { return }
        actions.append(.publishResult(awaited.event, checkFirst: true))
    }

    mutating func planStorePlace(at now: Timestamp) {
        guard !results.isStorePlanned, results.reached == nil else { return }
        results.isStorePlanned = true
        deadlines.insert(.storePlace, at: now + .seconds(1))
    }

    /// Stores a place that was reached long enough ago, and notes the one that is reached now.
    mutating func storeResultsPlace(at now: Timestamp) {
        results.isStorePlanned = false
        let observed = results.observed
        results.endedAhead = results.endedAhead.filter { $0 > observed }
        storeReachedPlace(at: now)
        let place = results.currentPlace
        guard results.reached == nil, place > results.place else { return }
        results.reached = (place, now)
        guard policy.resultsLag > .zero else { return storeReachedPlace(at: now) }
        deadlines.insert(.storePlace, at: now + policy.resultsLag)
    }

    private mutating func storeReachedPlace(at now: Timestamp) {
        guard let (place, since) = results.reached, now - since >= policy.resultsLag else { return }
        results.reached = nil
        results.place = place
        actions.append(.storeResultsPlace(place))
    }
}
