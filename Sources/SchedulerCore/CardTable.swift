import HeapModule
import JobModel

/// The cards by their ids, and which of them a job would go to.
///
/// Who changes a card need not know of the latter: the card is put down as changed, and ``refresh(policy:at:)`` finds
/// where it stands now. What changes by time alone, readings that become stale, has a queue of its own. So a decision
/// costs the logarithm of the number of cards, and heartbeats that change nothing cost next to nothing.
struct CardTable: Sendable {
    private struct Entry: Sendable {
        var card: Card?
        /// It may stand elsewhere than it should.
        var isChanged = false
        /// The time at which its readings become stale is in the queue.
        var isTimed = false
        /// It may take jobs, now or when it has room again.
        var serves = false
        /// Its worker can end a job in time when it is cut off.
        var fences = false
    }

    /// When a card's readings were as old as they may be.
    private struct Expiry: Comparable {
        let time: Timestamp
        let number: Int

        static func < (a: Expiry, b: Expiry) -> Bool { (a.time, a.number) < (b.time, b.number) }
    }

    private var entries: [Entry] = []
    private var numbers: [GPUID: Int] = [:]
    private var free: [Int] = []
    private var changed: [Int] = []
    private var expiries = Heap<Expiry>()
    /// The cards that can take a job now, best first.
    private var available = IndexedHeap<CardRank>()

    /// The ids of all cards, sorted.
    private(set) var order: [GPUID] = []
    /// Cards with a living worker.
    private(set) var aliveCount = 0
    /// Cards that may take jobs, now or when they have room again; as of the last refresh.
    private(set) var servingCount = 0
    private var fencingCount = 0

    var count: Int { order.count }
    var values: some Sequence<Card> { entries.lazy.compactMap(\.card) }

    subscript(gpu: GPUID) -> Card? {
        _read {
            if let number = numbers[gpu] { yield entries[number].card } else { yield nil }
        }
        _modify {
            if let number = numbers[gpu] {
                let wasAlive = entries[number].card?.isAlive == true
                defer { noteChange(of: gpu, number, wasAlive: wasAlive) }
                yield &entries[number].card
            } else {
                var card: Card?
                defer { if let card { add(card, gpu) } }
                yield &card
            }
        }
    }

    /// Takes a slot of a card for a job.
    /// - Returns: how many jobs are bound to it now.
    mutating func assign(_ job: JobID, to gpu: GPUID) -> Int {
        guard let number = numbers[gpu] else { return 0 }
        entries[number].card?.assigned.insert(job)
        putDown(number)
        return entries[number].card?.assigned.count ?? 0
    }

    private mutating func noteChange(of gpu: GPUID, _ number: Int, wasAlive: Bool) {
        let isAlive = entries[number].card?.isAlive == true
        if isAlive != wasAlive { aliveCount += isAlive ? 1 : -1 }
        putDown(number)
        if entries[number].card == nil { remove(gpu, number) }
    }

    private mutating func putDown(_ number: Int) {
        guard !entries[number].isChanged else { return }
        entries[number].isChanged = true
        changed.append(number)
    }

    private mutating func add(_ card: Card, _ gpu: GPUID) {
        let number = free.popLast() ?? entries.count
        if number == entries.count { entries.append(Entry()) }
        entries[number].card = card
        numbers[gpu] = number
        order.insert(gpu, at: place(of: gpu))
        if card.isAlive { aliveCount += 1 }
        putDown(number)
    }

    private mutating func remove(_ gpu: GPUID, _ number: Int) {
        numbers[gpu] = nil
        order.remove(at: place(of: gpu))
        available.remove(number)
        if entries[number].serves { servingCount -= 1 }
        entries[number].serves = false
        if entries[number].fences { fencingCount -= 1 }
        entries[number].fences = false
        free.append(number)
    }

    private func place(of gpu: GPUID) -> Int {
        var (low, high) = (0, order.count)
        while low < high {
            let middle = (low + high) / 2
            if order[middle] < gpu { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: the best card

    /// What a refresh found that concerns waiting jobs.
    struct News: Sendable {
        /// Cards that can take a job and could not before, or whose worker can fence now or cannot any more.
        var freed: [GPUID] = []
        /// Cards that serve or can fence now and did not before, or the other way round.
        var turned: [GPUID] = []
        /// Some card serves or can fence and none did before, or the other way round.
        var isServiceTurned = false
    }

    /// Brings everything below in step with the cards and the time.
    mutating func refresh(policy: SchedulerPolicy, at now: Timestamp) -> News {
        while let first = expiries.min, first.time < now {
            _ = expiries.popMin()
            entries[first.number].isTimed = false
            putDown(first.number)
        }
        var news = News()
        guard !changed.isEmpty else { return news }
        let served = servingCount > 0
        for number in changed { update(number, policy, now, &news) }
        changed.removeAll(keepingCapacity: true)
        if served != (servingCount > 0) { news.isServiceTurned = true }
        return news
    }

    private mutating func update(_ number: Int, _ policy: SchedulerPolicy, _ now: Timestamp, _ news: inout News) {
        entries[number].isChanged = false
        let (standing, expiry) = standing(of: number, policy, now)
        guard let standing else { return }
        if let expiry, !entries[number].isTimed {
            entries[number].isTimed = true
            expiries.insert(Expiry(time: expiry, number: number))
        }
        if standing.serves != entries[number].serves {
            entries[number].serves = standing.serves
            servingCount += standing.serves ? 1 : -1
            news.turned.append(standing.gpu)
        }
        if standing.fences != entries[number].fences {
            entries[number].fences = standing.fences
            fencingCount += standing.fences ? 1 : -1
            news.turned.append(standing.gpu)
            news.freed.append(standing.gpu)
            news.isServiceTurned = true
        }
        if let rank = standing.rank {
            if !available.contains(number) { news.freed.append(standing.gpu) }
            available.set(number, to: rank)
        } else {
            available.remove(number)
        }
    }

    private struct Standing {
        let gpu: GPUID
        let serves: Bool
        let fences: Bool
        /// Nil when it can take no job now.
        let rank: CardRank?
    }

    /// How a card stands, and until when if readings tell.
    private func standing(of number: Int, _ policy: SchedulerPolicy, _ now: Timestamp) -> (Standing?, Timestamp?) {
        guard let card = entries[number].card else { return (nil, nil) }
        let objection = card.objection(policy: policy, at: now)
        let isOpen = objection == nil && card.assigned.count < card.capacity(policy: policy)
        let standing = Standing(
            gpu: card.id,
            serves: objection?.isForWantOfRoom ?? true,
            fences: card.canFence,
            rank: isOpen ? CardRank(card, policy: policy, at: now) : nil
        )
        let expiry = card.isStale(policy: policy, at: now) ? nil : card.readAt.map { $0 + policy.metricsTTL }
        return (standing, expiry)
    }

    /// Some card can take a job now.
    var isAnyAvailable: Bool { !available.isEmpty }

    /// The workers of all cards can fence; as of the last refresh.
    var isEachFencing: Bool { fencingCount == count }

    /// The best card of all that can take a job now.
    var best: GPUID? { available.first.flatMap { entries[$0.number].card?.id } }

    /// The card can take a job now.
    func isAvailable(_ gpu: GPUID) -> Bool { numbers[gpu].map { available.contains($0) } ?? false }

    /// The best card that can take a job now, leaving out one of them as long as others serve.
    func best(avoiding gpu: GPUID) -> GPUID? {
        guard let number = numbers[gpu] else { return best }
        if let other = available.first(otherThan: number) { return entries[other].card?.id }
        let othersServe = servingCount > (entries[number].serves ? 1 : 0)
        return available.contains(number) && !othersServe ? gpu : nil
    }

    /// Where a card stands for a job for which its score is that much better; nil when it can take none now.
    func rank(of gpu: GPUID, bonus: Double) -> CardRank? {
        numbers[gpu].flatMap { available.key(of: $0) }?.better(by: bonus)
    }

    /// The card may take jobs, now or when it has room again.
    func serves(_ gpu: GPUID) -> Bool { numbers[gpu].map { entries[$0].serves } ?? false }
}

/// Where a card stands among those that can take a job: one with a free slot before one where the job would wait, then
/// the emptier, then the better score, then the lower id.
struct CardRank: Comparable, Sendable {
    private let isAhead: Bool
    private let load: Int
    private var score: Double
    /// The id as a number, above all numbers for a name.
    private let number: Int
    private let id: GPUID

    init(_ card: Card, policy: SchedulerPolicy, at now: Timestamp) {
        load = card.assigned.count
        isAhead = load >= card.slots
        score = card.score(policy: policy, at: now)
        number = card.id.number ?? .max
        id = card.id
    }

    func better(by bonus: Double) -> CardRank {
        var rank = self
        rank.score -= bonus
        return rank
    }

    static func < (a: CardRank, b: CardRank) -> Bool {
        if a.isAhead != b.isAhead { return b.isAhead }
        if a.load != b.load { return a.load < b.load }
        if a.score != b.score { return a.score < b.score }
        if a.number != b.number { return a.number < b.number }
        return a.id < b.id
    }
}
