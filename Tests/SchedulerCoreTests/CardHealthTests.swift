import JobModel
import Testing
import WireJSON

@testable import SchedulerCore

@Suite("Sick cards") struct CardHealthTests {
    /// A card that its worker calls sick.
    private func sickBench() -> Bench {
        var bench = Bench()
        bench.start(1)
        bench.readSigns(1, .quarantine, hold: CardHold(.unhealthy, reason: "lost: NVML 15"))
        return bench
    }

    @Test func aCardThatItsWorkerCallsSickIsQuarantined() throws {
        var bench = sickBench()
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        let quarantine = try #require(bench.controls[1]?.quarantine)
        #expect(quarantine.kind == .health && quarantine.strikes == 1 && quarantine.pause == .seconds(30))
        #expect((quarantine.reason, quarantine.evidence) == ("lost", "NVML 15"))
        #expect(bench.view(of: 1, for: "a")?["reason"] == "quarantined: lost, NVML 15")
        #expect(bench.told("gpu_quarantined")?["evidence"] == "NVML 15")
        bench.readSigns(1, .quarantine)
        #expect(bench.told.filter { $0.event == "gpu_quarantined" }.count == 1, "told once, however often it is seen")
    }

    @Test func aProbeThatSucceedsBringsItBackOnProbation() throws {
        var bench = sickBench()
        bench.dispatch("a")
        bench.dispatch("b")
        bench.setSlots(1, 2)
        bench.pass(.milliseconds(29_999), beating: [1])
        #expect(bench.probes.isEmpty)
        bench.pass(.milliseconds(1), beating: [1])
        #expect(bench.probes == [1])
        bench.endProbe(1)
        #expect(bench.controls[1]?.quarantine == nil)
        #expect(bench.controls[1]?.probation?.strikes == 1)
        #expect(bench.announcements.contains("gpu_probation"))
        #expect(bench.cardState(1) == "unhealthy", "its worker has not said yet that it is well")
        bench.readSigns(1, nil)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.state("b") == .enqueued, "one job at a time")
        #expect(bench.view(of: 1, for: "b")?["reason"]?.stringValue?.hasPrefix("probation: ") == true)
        bench.pass(.seconds(10), beating: [1])
        #expect(bench.state("b") == .enqueued, "a card on probation is there: its jobs do not say that there is none")
    }

    @Test func threeJobsThatEndWellEndTheProbation() throws {
        var bench = sickBench()
        bench.pass(.seconds(30), beating: [1])
        bench.endProbe(1)
        bench.readSigns(1, nil)
        for id in ["a", "b", "c"] as [JobID] {
            #expect(bench.controls[1]?.probation != nil)
            try bench.run(id)
            try bench.commit(id, .finish(outcome()))
            bench.answer()
        }
        #expect(bench.controls[1]?.isEmpty == true)
        #expect(bench.announcements.last == "gpu_recovered")
        #expect(bench.cardState(1) == "up")
    }

    @Test func probesThatFailComeLessAndLessOften() {
        var bench = sickBench()
        var waits: [Double] = []
        for _ in 0..<9 {
            let begin = bench.now
            while bench.probes.isEmpty { bench.pass(.seconds(5), beating: [1]) }
            waits.append((bench.now - begin).inSeconds)
            bench.forget()
            bench.endProbe(1, .sick(evidence: "NVML 15"))
        }
        #expect(waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600])
        #expect(bench.row(1)?["quarantine"]?["probe_evidence"] == "NVML 15")
        #expect(bench.controls[1]?.quarantine?.strikes == 1)
    }

    @Test func aProbeThatWasNotCarriedOutComesAgainAsSoon() {
        var bench = sickBench()
        bench.pass(.seconds(30), beating: [1])
        bench.forget()
        bench.endProbe(1, .notDone(reason: "another probe runs"))
        bench.pass(.seconds(30), beating: [1])
        #expect(bench.probes == [1])
        bench.pass(.seconds(300), beating: [1])
        #expect(bench.probes == [1], "one probe at a time")
    }

    @Test func aCardThatIsGoneIsProbedWhenItIsBack() {
        var bench = sickBench()
        bench.pass(.seconds(100))
        #expect(bench.probes.isEmpty)
        bench.start(1)
        #expect(bench.probes == [1])
        #expect(bench.cardState(1) == "quarantined")
    }

    /// Leaders that change more often than a probe's pause lasts keep no card in quarantine.
    @Test func aLeaderProbesAtOnceWhatWasDueBeforeItsTime() {
        let bench = sickBench()
        var next = Bench.successor(of: bench, after: .seconds(40))
        next.registration(1, isReleased: false)
        #expect(next.probes.isEmpty)
        next.beat(1)
        #expect(next.probes == [1])
    }

    @Test func theNextLeaderProbesWhenTheTimeHasCome() {
        var bench = sickBench()
        bench.pass(.seconds(10), beating: [1])
        var next = Bench.successor(of: bench, after: .seconds(5))
        next.registration(1, isReleased: false)
        next.beat(1)
        next.pass(.seconds(15), beating: [1])
        #expect(next.probes == [1])
    }

    @Test func signsThatWereSentBeforeTheCardWasClearedAreNotHeeded() {
        var bench = sickBench()
        bench.pass(.seconds(30), beating: [1])
        bench.endProbe(1)
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.quarantine == nil)
        bench.pass(.seconds(5), beating: [1])
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.quarantine?.strikes == 2)
        #expect(bench.controls[1]?.quarantine?.pause == .seconds(60), "the second time it waits longer for its probe")
    }

    @Test func aPersonsWordClearsEverythingAndAProbeConvincesTheWorker() {
        var bench = sickBench()
        #expect(bench.ask(.clear, 1)?["state"] == "unhealthy")
        #expect(bench.controls[1]?.isEmpty == true)
        #expect(bench.probes == [1])
        bench.pass(.seconds(5), beating: [1])
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.isEmpty == true, "not while the probe runs")
        bench.endProbe(1, .sick(evidence: "NVML 15"))
        bench.pass(.seconds(5), beating: [1])
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.quarantine?.strikes == 1, "a card that does not work is not used, whoever says so")
    }

    @Test func aPersonsQuarantineIsTakenBackByAPersonAlone() {
        var bench = Bench()
        bench.start(1)
        #expect(bench.ask(.quarantine, 1, reason: "smells")?["state"] == "quarantined")
        bench.readSigns(1, .quarantine)
        #expect(bench.controls[1]?.quarantine?.kind == .operator)
        bench.pass(.seconds(10_000), beating: [1])
        #expect(bench.probes.isEmpty)
        bench.ask(.clear, 1)
        #expect(bench.announcements.contains("gpu_cleared"))
    }

    @Test func aMilderSignPutsTheCardOnProbation() {
        var bench = Bench()
        bench.start(1, slots: 2)
        bench.readSigns(1, .notice)
        #expect(bench.controls[1] == nil)
        bench.readSigns(1, .probation)
        #expect(bench.controls[1]?.probation?.strikes == 0)
        bench.dispatch("a")
        bench.dispatch("b")
        #expect(bench.state("a") == .scheduled)
        #expect(bench.state("b") == .enqueued)
    }

    @Test func whatTheWorkerHoldsGetsNothingAndGivesBackWhatItHasNotClaimed() {
        var bench = Bench()
        bench.start(1)
        bench.dispatch("a")
        bench.readSigns(1, nil, hold: CardHold(.overheated, reason: "91 C"))
        #expect(bench.state("a") == .enqueued)
        #expect(bench.cardState(1) == "overheated")
        #expect(bench.told("gpu_held")?["reason"] == "overheated: 91 C")
        bench.pass(.seconds(60), beating: [1])
        #expect(bench.record("a")?.attempt != nil && bench.state("a") == .waitingGPU, "a hold outlasts stale readings")
        bench.readSigns(1, nil, hold: CardHold(.cooling, reason: "68 C"))
        #expect(bench.cardState(1) == "cooling")
        bench.readSigns(1, nil)
        #expect(bench.state("a") == .scheduled)
        #expect(bench.told.filter { $0.event == "gpu_held" }.count == 1)
        #expect(bench.announcements.last == "gpu_resumed")
    }

    @Test func aHoldOutlastsTheLifeOfTheWorkerThatSetIt() {
        var bench = Bench()
        bench.start(1)
        bench.readSigns(1, nil, hold: CardHold(.sensor, reason: "no temperature"), temperature: nil)
        bench.start(1)
        bench.dispatch("a")
        #expect(bench.state("a") == .enqueued)
        bench.readSigns(1, nil)
        #expect(bench.state("a") == .scheduled)
    }
}
