import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

/// The placement as the rules say it, by looking at everything: what the indexes must agree with.
private struct PlainPlacement {
    let core: SchedulerCore
    let now: Timestamp

    /// The first waiting job that has a card, and the best of its cards.
    var choice: (job: JobID, card: GPUID)? {
        let waiting = core.jobs.values.filter { $0.isWaiting && $0.card == nil }
        let sorted = waiting.sorted {
            ($0.priority, -Int($0.record.order)) > ($1.priority, -Int($1.record.order))
        }
        for job in sorted {
            if let card = bestCard(for: job) { return (job.record.id, card) }
        }
        return nil
    }

    private func bestCard(for job: Job) -> GPUID? {
        var best: (rank: (Int, Int, Double), card: GPUID)?
        for gpu in core.candidates(for: job.placement) {
            guard let card = core.cards[gpu], card.objection(policy: core.policy, at: now) == nil,
                !core.isAvoided(gpu, for: job.placement, at: now)
            else { continue }
            let load = card.assigned.count
            guard load < card.capacity(policy: core.policy) else { continue }
            let score = card.score(policy: core.policy, at: now) - core.cacheBonus(of: gpu, for: job.cacheKeys)
            let rank = (load < card.slots ? 0 : 1, load, score)
            if best.map({ rank < $0.rank }) ?? true { best = (rank, gpu) }
        }
        return best?.card
    }
}

@Suite struct PlacementIndexTests {
    /// The names of a pool's cards: numbers that sort otherwise than their text, and names.
    private static let names: [GPUID] = ["0", "2", "10", "11", "rig1-0", "rig1-10", "rig2-3", "a-long-name-of-a-rig-7"]

    @Test(arguments: 1...60) func theIndexesChooseAsTheRulesDo(seed: UInt64) throws {
        var ids = IdentifierSource(seed: seed)
        func number(_ count: Int) -> Int { Int(ids.next() % UInt64(count)) }
        var policy = SchedulerPolicy()
        policy.dayMaxCards = number(3) == 0 ? 3 : 0
        policy.retryAtOnce()
        var bench = Bench(policy: policy, seed: seed)
        let gpus = Array(Self.names.prefix(2 + number(Self.names.count - 1)))
        for gpu in gpus { bench.start(gpu, slots: 1 + number(3)) }
        var submitted = 0
        for _ in 0..<60 {
            // Nothing is placed while the world changes…
            bench.core.knowsControl = false
            for _ in 0..<(1 + number(8)) {
                let gpu = gpus[number(gpus.count)]
                switch number(13) {
                case 0...3:
                    submitted += 1
                    let pin = number(4) == 0 ? gpus[number(gpus.count)] : nil
                    submit(&bench, submitted, gpu: pin, reading: number(4))
                case 4, 5: bench.read(gpu, busy: Double(number(11)) * 10, temperature: Double(40 + number(5) * 10))
                case 6: bench.read(gpu)
                case 7: bench.ask([.cordon, .uncordon, .quarantine, .clear][number(4)], gpu)
                case 8: bench.start(gpu, slots: 1 + number(3))
                case 9: bench.pass(.seconds(1 + number(8)), beating: Array(gpus.prefix(1 + number(gpus.count))))
                case 10: report(&bench, gpu, holding: number(4))
                default: try end(oneOf: &bench, number)
                }
            }
            // …then everything that has a card gets it, in the same order as by looking at everything.
            let expected = choices(in: bench)
            bench.core.knowsControl = true
            let before = bench.writes.count
            bench.send(.controlReplayed)
            let placed = bench.writes[before...].map(\.record).filter { $0.state == .scheduled }
            #expect(placed.map(\.id) == expected.map(\.job), "seed \(seed)")
            #expect(placed.map(\.gpu) == expected.map(\.card), "seed \(seed)")
            bench.answer()
        }
        #expect(submitted > 20)
    }

    /// What is placed now, by the rules, until nothing more is. Each step is compared with the indexes.
    private func choices(in bench: Bench) -> [(job: JobID, card: GPUID)] {
        var core = bench.core
        core.refreshCards(at: bench.now)
        var choices: [(job: JobID, card: GPUID)] = []
        while let choice = PlainPlacement(core: core, now: bench.now).choice {
            let indexed = core.nextChoice()
            #expect(indexed?.job == choice.job && indexed?.card == choice.card)
            guard let indexed, indexed.job == choice.job else { return choices }
            core.take(indexed, at: bench.now)
            core.jobs[indexed.job]?.card = indexed.card
            choices.append(choice)
        }
        #expect(core.nextChoice() == nil)
        return choices
    }

    /// Two things that a job may read and a cache may hold, in all combinations.
    private static let reads = [[], ["model"], ["data"], ["model", "data"]]

    private func submit(_ bench: inout Bench, _ number: Int, gpu: GPUID?, reading: Int) {
        var json: JSONObject = ["task_id": .string("j\(number)"), "cmd": ["true"], "max_retries": 3]
        json["gpu"] = gpu?.json
        json["cache_key"] = .array(Self.reads[reading].map { .string($0) })
        bench.submit(JSON.object(json).encoded())
        bench.answer()
    }

    private func report(_ bench: inout Bench, _ gpu: GPUID, holding: Int) {
        guard let life = bench.life(of: gpu) else { return }
        let keys = Self.reads[holding].compactMap { CacheKey($0) }
        bench.send(.cache(CacheReport(gpu: gpu, incarnation: life, mode: .overlay, path: "/srv", holds: keys)))
    }

    /// Some job that was dispatched is claimed, or ends in one way or another.
    private func end(oneOf bench: inout Bench, _ number: (Int) -> Int) throws {
        let bound = bench.core.jobs.values.map(\.record).filter(\.isBound).sorted { $0.id < $1.id }
        guard !bound.isEmpty else { return }
        let record = bound[number(bound.count)]
        if record.state == .scheduled { return try bench.commit(record.id, .claim) }
        switch number(3) {
        case 0: try bench.commit(record.id, .retry(outcome(exit: 1, seconds: 0.2), delay: .zero))
        default: try bench.commit(record.id, .finish(outcome(seconds: number(2) == 0 ? 0.2 : 10)))
        }
        bench.answer()
    }
}

extension SchedulerPolicy {
    fileprivate mutating func retryAtOnce() { limits.retryBackoff = .zero }
}
