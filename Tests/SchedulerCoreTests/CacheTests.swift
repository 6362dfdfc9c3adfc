import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

/// A card whose cache has what a job reads is preferred, within bounds.
@Suite struct CacheTests {
    /// Two cards that are the same but for what their caches hold.
    private func bench(_ policy: SchedulerPolicy = SchedulerPolicy()) -> Bench {
        var bench = Bench(policy: policy)
        for gpu in [1, 2] as [GPUID] {
            bench.start(gpu)
            bench.read(gpu, busy: 0, temperature: 50)
        }
        return bench
    }

    private func report(_ bench: inout Bench, _ gpu: GPUID, holds: [String]) throws {
        let life = try #require(bench.life(of: gpu))
        let keys = holds.compactMap { CacheKey($0) }
        bench.send(.cache(CacheReport(gpu: gpu, incarnation: life, mode: .overlay, path: "/srv", holds: keys)))
    }

    private func submit(_ bench: inout Bench, _ id: JobID, _ keys: [String], gpu: GPUID? = nil) {
        var json: JSONObject = ["task_id": .string(id.text), "cmd": ["true"]]
        json["cache_key"] = .array(keys.map { .string($0) })
        json["gpu"] = gpu?.json
        bench.submit(JSON.object(json).encoded())
        bench.answer()
    }

    @Test func theCardThatHasItGetsTheJob() throws {
        var bench = bench()
        try report(&bench, 2, holds: ["models/llama"])
        submit(&bench, "a", ["models/llama"])
        #expect(bench.record("a")?.gpu == 2)
    }

    @Test func theCardWithMoreOfItGetsTheJob() throws {
        var bench = bench()
        try report(&bench, 1, holds: ["a"])
        try report(&bench, 2, holds: ["a", "b", "x"])
        submit(&bench, "a", ["a", "b"])
        #expect(bench.record("a")?.gpu == 2)
    }

    @Test func theBonusIsBounded() throws {
        var bench = bench()
        try report(&bench, 2, holds: ["m"])
        bench.read(2, busy: 0, temperature: 50 + 2 * bench.core.policy.cacheBonus + 1)
        #expect(bench.core.cards[2]?.marks.contains(.hot) == true)
        bench.read(1, busy: bench.core.policy.cacheBonus - 1, temperature: 50)
        bench.read(2, busy: 0, temperature: 50)
        submit(&bench, "near", ["m"])
        #expect(bench.record("near")?.gpu == 2)
        bench = self.bench()
        try report(&bench, 2, holds: ["m"])
        bench.read(2, busy: bench.core.policy.cacheBonus + 1, temperature: 50)
        submit(&bench, "far", ["m"])
        #expect(bench.record("far")?.gpu == 1, "a card that is much busier is not waited for")
    }

    @Test func theCacheNeverKeepsAJobWaiting() throws {
        var bench = bench()
        try report(&bench, 2, holds: ["m"])
        submit(&bench, "first", ["m"])
        submit(&bench, "second", ["m"])
        #expect(bench.record("first")?.gpu == 2)
        #expect(bench.record("second")?.gpu == 1)
    }

    @Test func aPinIsStrongerThanTheCache() throws {
        var bench = bench()
        try report(&bench, 2, holds: ["m"])
        submit(&bench, "a", ["m"], gpu: 1)
        #expect(bench.record("a")?.gpu == 1)
    }

    @Test func anotherLifeOfTheWorkerTellsAnew() throws {
        var bench = bench()
        try report(&bench, 2, holds: ["m"])
        let earlier = try #require(bench.life(of: 2))
        bench.start(2)
        bench.read(2, busy: 0, temperature: 50)
        let key = try #require(CacheKey("m"))
        bench.send(.cache(CacheReport(gpu: 2, incarnation: earlier, mode: .overlay, path: "", holds: [key])))
        submit(&bench, "a", ["m"])
        #expect(bench.record("a")?.gpu == 1)
    }

    @Test func manyKeysMakeNoClasses() throws {
        var bench = bench()
        for number in 0..<40 { submit(&bench, JobID("job-\(number)") ?? "x", ["file-\(number)"]) }
        #expect(bench.core.queue.order.count <= 1)
    }

    @Test func whyAndTheDecisionTellWhatTheCacheIsWorth() throws {
        var policy = SchedulerPolicy()
        policy.logsDecisions = true
        var bench = bench(policy)
        try report(&bench, 2, holds: ["m"])
        submit(&bench, "a", ["m"])
        let decision = try #require(bench.decisions.last)
        #expect(decision.candidates.map(\.cacheBonus) == [0, 20])
        #expect(decision.candidates.map(\.score) == [25, 5])
        #expect(decision.json["candidates"]?.arrayValue?.map { $0["cache_bonus"] } == [nil, 20])
        bench.ask(.cordon, 1)
        submit(&bench, "b", ["m"])
        submit(&bench, "c", ["m", "n"])
        #expect(bench.view(of: 2, for: "c")?["cache_bonus"]?.doubleValue == 10)
        #expect(bench.row(2)?["cache"]?["holds"]?.intValue == 1)
        #expect(bench.row(2)?["score"]?.doubleValue == 25, "the row of a card is nobody's in particular")
    }
}
