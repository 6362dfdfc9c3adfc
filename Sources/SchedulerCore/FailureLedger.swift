import JobModel

/// Which failures only one card has: the same jobs, or others of their kind, succeeded elsewhere after them.
///
/// A failure is *confirmed* when after it the same job, or another one of its kind, ended well on another card. It is
/// *disputed*, and confirmed by nothing but its own job, when that job failed on another card too: then it is rather the
/// job. A success of the kind on the card itself takes back what it had of that kind. All in memory, and bounded: the
/// oldest kinds give way.
///
/// What a leader inherits from the records (``FailureHistory``) speaks for cards, never against one: the records do not tell
/// all failures, and one that was taken back long ago may look like one that stands.
struct FailureLedger: Sendable {
    private struct Failure: Sendable {
        let job: JobID
        /// The number of the attempt among those that ended on the card.
        let number: UInt64
        let time: Timestamp
        var evidence = Evidence.none
        var isDisputed = false
        /// From before this leader's time: not held against the card.
        var isInherited = false
    }

    private enum Evidence: Sendable { case none, kind, job }

    private struct Kind: Sendable {
        var failures: [GPUID: [Failure]] = [:]
        /// How often a card failed at it and then did well: it fails by itself now and then.
        var recoveries = 0
        var recoveredAt: Timestamp?
        /// Jobs that failed before this leader's time on a card that is not known.
        var unplaced: [JobID] = []
        /// Cards of which one had such a failure and which have not done well at the kind since; when none is left, that one
        /// has recovered, whichever it was.
        var unproven: Set<GPUID> = []
        /// When the first of these failures was known of.
        var unprovenSince: Timestamp?
        /// The order of the last uses.
        var used: UInt64

        var isEmpty: Bool { failures.isEmpty && recoveries == 0 && unplaced.isEmpty && unproven.isEmpty }

        func knows(_ job: JobID) -> Bool { failures.values.contains { $0.contains { $0.job == job } } }

        /// - Returns: whether a failure on an unknown card was one of a card that has recovered.
        mutating func prove(_ card: GPUID, at now: Timestamp) -> Bool {
            if let since = unprovenSince, now - since > FailureLedger.recentTime { unproven = [] }
            return unproven.remove(card) != nil && unproven.isEmpty
        }
    }

    /// A failure counts while it is among the last attempts on its card, or not older than this.
    static let recentAttempts: UInt64 = 20
    static let recentTime = Duration.seconds(600)
    /// Different jobs that have to fail on a card before it is to blame; more where the kind fails by itself.
    static let jobsNeeded = 3
    static let jobsNeededOfFlakyKind = 8
    static let recoveriesOfFlakyKind = 2
    /// Failures kept of a kind on one card, and kinds.
    static let maximumFailures = 16
    static let maximumUnplaced = 256
    static let maximumKinds = 256

    private var kinds: [JobKind: Kind] = [:]
    /// Attempts that ended on each card.
    private var attempts: [GPUID: UInt64] = [:]
    private var uses: UInt64 = 0

    /// The kinds with failures that are kept.
    var count: Int { kinds.count }

    // MARK: what happened

    /// An attempt failed in a way that may be its card's fault.
    /// - Parameter isInherited: before this leader's time.
    mutating func noteFailure(
        of job: JobID,
        _ kind: JobKind,
        on card: GPUID,
        isInherited: Bool = false,
        at now: Timestamp
    ) {
        let number = countAttempt(on: card)
        var known = take(kind) ?? Kind(used: uses)
        var isDisputed = known.unplaced.contains(job)
        for other in known.failures.keys where other != card {
            guard let index = known.failures[other]?.firstIndex(where: { $0.job == job }) else { continue }
            known.failures[other]?[index].isDisputed = true
            isDisputed = true
        }
        var failures = known.failures.removeValue(forKey: card) ?? []
        failures.removeAll { $0.job == job || !isRecent($0, on: card, at: now) }
        if failures.count >= Self.maximumFailures { failures.removeFirst() }
        failures.append(
            Failure(job: job, number: number, time: now, isDisputed: isDisputed, isInherited: isInherited)
        )
        known.failures[card] = failures
        makeRoom()
        kinds[kind] = known
    }

    /// An attempt failed before this leader's time, and the records do not tell where.
    /// - Parameter cards: one of these it was; empty if that is too long ago to say anything of a card.
    mutating func noteUnplacedFailure(of job: JobID, _ kind: JobKind, among cards: [GPUID], at now: Timestamp) {
        var known = take(kind) ?? Kind(used: uses)
        if !known.knows(job) {
            if known.unplaced.count >= Self.maximumUnplaced { known.unplaced.removeFirst() }
            known.unplaced.append(job)
            if known.unproven.isEmpty {
                known.unproven = Set(cards)
                known.unprovenSince = now
            }
        }
        guard !known.isEmpty else { return }
        makeRoom()
        kinds[kind] = known
    }

    /// An attempt ended well.
    /// - Returns: the cards against which there is something new now, in their order.
    mutating func noteSuccess(of job: JobID, _ kind: JobKind, on card: GPUID, at now: Timestamp) -> [GPUID] {
        _ = countAttempt(on: card)
        guard var known = take(kind) else { return [] }
        known.unplaced.removeAll { $0 == job }
        let isProven = known.prove(card, at: now)
        if known.failures.removeValue(forKey: card) != nil || isProven { noteRecovery(&known, at: now) }
        var confirmed: [GPUID] = []
        for other in known.failures.keys {
            guard var failures = known.failures.updateValue([], forKey: other) else { continue }
            if Self.confirm(&failures, by: job) { confirmed.append(other) }
            known.failures[other] = failures
        }
        if !known.isEmpty { kinds[kind] = known }
        return confirmed.sorted()
    }

    /// What is known of a kind, taken out to be changed in place.
    private mutating func take(_ kind: JobKind) -> Kind? {
        uses += 1
        var known = kinds.removeValue(forKey: kind)
        known?.used = uses
        return known
    }

    /// - Returns: whether one of them says more than before.
    private static func confirm(_ failures: inout [Failure], by job: JobID) -> Bool {
        var isNews = false
        for index in failures.indices {
            if failures[index].job == job {
                isNews = isNews || failures[index].evidence != .job
                failures[index].evidence = .job
            } else if failures[index].evidence == .none {
                failures[index].evidence = .kind
                isNews = true
            }
        }
        return isNews
    }

    private func noteRecovery(_ kind: inout Kind, at now: Timestamp) {
        kind.recoveries = isRecentlyRecovered(kind, at: now) ? kind.recoveries + 1 : 1
        kind.recoveredAt = now
    }

    private func isFlaky(_ kind: Kind, at now: Timestamp) -> Bool {
        kind.recoveries >= Self.recoveriesOfFlakyKind && isRecentlyRecovered(kind, at: now)
    }

    private func isRecentlyRecovered(_ kind: Kind, at now: Timestamp) -> Bool {
        kind.recoveredAt.map { now - $0 <= Self.recentTime } ?? false
    }

    // MARK: what it says

    /// The jobs that failed on a card and only there; nil when they are too few to blame the card.
    /// - Parameter needed: how many are enough; nil for the usual number.
    func jobsAgainst(_ card: GPUID, needed: Int? = nil, at now: Timestamp) -> [JobID]? {
        var jobs: Set<JobID> = []
        var flakyJobs: Set<JobID> = []
        for kind in kinds.values {
            for failure in kind.failures[card] ?? [] where counts(failure) && isRecent(failure, on: card, at: now) {
                if isFlaky(kind, at: now) { flakyJobs.insert(failure.job) } else { jobs.insert(failure.job) }
            }
        }
        let isEnough =
            jobs.count >= needed ?? Self.jobsNeeded
            || jobs.count + flakyJobs.count >= max(needed ?? 0, Self.jobsNeededOfFlakyKind)
        return isEnough ? jobs.union(flakyJobs).sorted() : nil
    }

    private func counts(_ failure: Failure) -> Bool {
        guard !failure.isInherited else { return false }
        return switch failure.evidence {
        case .none: false
        case .kind: !failure.isDisputed
        case .job: true
        }
    }

    private func isRecent(_ failure: Failure, on card: GPUID, at now: Timestamp) -> Bool {
        (attempts[card] ?? 0) - failure.number < Self.recentAttempts || now - failure.time <= Self.recentTime
    }

    /// The card begins anew: it was quarantined, or cleared, or is no longer there.
    mutating func forget(_ card: GPUID) {
        attempts[card] = nil
        for kind in kinds.keys {
            kinds[kind]?.failures[card] = nil
            // It may have been that one, which does not count as recovered now.
            kinds[kind]?.unproven = []
        }
    }

    private mutating func countAttempt(on card: GPUID) -> UInt64 {
        attempts[card, default: 0] += 1
        return attempts[card] ?? 0
    }

    /// The kind that was not used for the longest time gives way to a new one.
    private mutating func makeRoom() {
        guard kinds.count >= Self.maximumKinds else { return }
        if let oldest = kinds.min(by: { $0.value.used < $1.value.used })?.key { kinds[oldest] = nil }
    }
}
