import JobModel
import Testing

@testable import SchedulerCore

@Suite("Failures that only one card has") struct FailureLedgerTests {
    private var ledger = FailureLedger()
    private var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    private let train = JobKind(.shell("python3 train.py --seed 1"))
    private let test = JobKind(.shell("pytest"))

    private mutating func fail(_ job: JobID, on card: GPUID, _ kind: JobKind? = nil) {
        ledger.noteFailure(of: job, kind ?? train, on: card, at: now)
    }

    @discardableResult
    private mutating func succeed(_ job: JobID, on card: GPUID, _ kind: JobKind? = nil) -> [GPUID] {
        ledger.noteSuccess(of: job, kind ?? train, on: card, at: now)
    }

    private func blamed(_ card: GPUID, needed: Int? = nil) -> [JobID]? {
        ledger.jobsAgainst(card, needed: needed, at: now)
    }

    @Test mutating func threeJobsThatSucceedElsewhereAreEnough() {
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        #expect(succeed("a", on: 2) == [1])
        #expect(blamed(1) == ["a", "b", "c"], "one success elsewhere speaks for all of the kind")
        #expect(blamed(2) == nil)
    }

    @Test mutating func threeFailuresOfOneJobAreOne() {
        for _ in 0..<3 { fail("a", on: 1) }
        succeed("a", on: 2)
        #expect(blamed(1) == nil)
        #expect(blamed(1, needed: 1) == ["a"])
    }

    @Test mutating func aSuccessBeforeTheFailureSaysNothing() {
        succeed("x", on: 2)
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        #expect(blamed(1) == nil)
    }

    @Test mutating func jobsOfAnotherKindSayNothing() {
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        #expect(succeed("x", on: 2, test) == [])
        #expect(blamed(1) == nil)
    }

    @Test mutating func aSuccessOfTheKindOnTheCardItselfTakesEverythingBack() {
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        succeed("x", on: 2)
        succeed("y", on: 1)
        #expect(blamed(1) == nil)
    }

    @Test mutating func failuresOfSeveralKindsAddUp() {
        fail("a", on: 1)
        fail("b", on: 1, test)
        fail("c", on: 1, JobKind(.arguments(["blender"])))
        succeed("a", on: 2)
        succeed("x", on: 2, test)
        #expect(blamed(1) == nil)
        succeed("c", on: 3, JobKind(.arguments(["blender"])))
        #expect(blamed(1) == ["a", "b", "c"])
    }

    @Test mutating func whatFailsEverywhereIsNobodysFault() {
        for index in 0..<200 { fail(JobID(stringLiteral: "j\(index)"), on: GPUID(integerLiteral: index % 12)) }
        for gpu in 0..<12 { #expect(blamed(GPUID(integerLiteral: gpu), needed: 1) == nil) }
    }

    @Test mutating func aJobThatFailsOnTwoCardsIsItsOwnFaultUnlessItSucceedsOnAThird() {
        for job in ["a", "b", "c"] as [JobID] {
            fail(job, on: 1)
            fail(job, on: 2)
        }
        succeed("x", on: 3)
        #expect(blamed(1) == nil && blamed(2) == nil)
        for job in ["a", "b", "c"] as [JobID] { succeed(job, on: 3) }
        #expect(blamed(1) == ["a", "b", "c"], "two cards may be sick at once")
        #expect(blamed(2) == ["a", "b", "c"])
    }

    /// To blame card 1, for a kind that fails now and then.
    private mutating func eightAreNeeded() {
        for index in 0..<7 { fail(JobID(stringLiteral: "j\(index)"), on: 1) }
        succeed("x", on: 2)
        #expect(blamed(1) == nil)
        fail("j7", on: 1)
        succeed("y", on: 2)
        #expect(blamed(1)?.count == 8)
    }

    @Test mutating func aKindThatFailsNowAndThenNeedsMoreToBlameACard() {
        for gpu in [3, 4] as [GPUID] {
            fail(JobID(stringLiteral: "flaky-\(gpu)"), on: gpu)
            succeed(JobID(stringLiteral: "well-\(gpu)"), on: gpu)
        }
        eightAreNeeded()
    }

    @Test mutating func aFailureThatIsNeitherRecentNorAmongTheLastAttemptsNoLongerCounts() {
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        now = now + .seconds(3600)
        succeed("x", on: 2)
        #expect(blamed(1) != nil, "old, but the last attempts on the card")
        for index in 0..<20 { succeed(JobID(stringLiteral: "t\(index)"), on: 1, test) }
        #expect(blamed(1) == nil)
        for job in ["d", "e", "f"] as [JobID] { fail(job, on: 1) }
        for index in 0..<20 { succeed(JobID(stringLiteral: "u\(index)"), on: 1, test) }
        succeed("y", on: 2)
        #expect(blamed(1) == ["d", "e", "f"], "many attempts ago, but within ten minutes")
    }

    @Test mutating func aCardThatIsForgottenBeginsAnew() {
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        ledger.forget(1)
        succeed("a", on: 2)
        #expect(blamed(1, needed: 1) == nil)
    }

    // MARK: what a leader inherits

    private mutating func inherit(_ job: JobID, on card: GPUID) {
        ledger.noteFailure(of: job, train, on: card, isInherited: true, at: now)
    }

    private mutating func inheritUnplaced(_ job: JobID, among cards: [GPUID]) {
        ledger.noteUnplacedFailure(of: job, train, among: cards, at: now)
    }

    @Test mutating func whatIsInheritedIsNotHeldAgainstACard() {
        for job in ["a", "b", "c"] as [JobID] { inherit(job, on: 1) }
        for job in ["a", "x"] as [JobID] { succeed(job, on: 2) }
        #expect(blamed(1, needed: 1) == nil)
        for job in ["d", "e", "f"] as [JobID] { fail(job, on: 1) }
        succeed("y", on: 2)
        #expect(blamed(1) == ["d", "e", "f"], "what it does from now on is")
    }

    @Test mutating func anInheritedFailureDisputesThatOfTheNextCard() {
        for job in ["a", "b"] as [JobID] { inherit(job, on: 2) }
        inheritUnplaced("c", among: [1, 2, 3])
        for job in ["a", "b", "c"] as [JobID] { fail(job, on: 1) }
        succeed("x", on: 3)
        #expect(blamed(1, needed: 1) == nil)
        for job in ["a", "b", "c"] as [JobID] { succeed(job, on: 3) }
        #expect(blamed(1) == ["a", "b", "c"], "until the jobs themselves succeed")
    }

    @Test mutating func inheritedFailuresOfACardThatDidWellSinceShowAFlakyKind() {
        for gpu in [3, 4] as [GPUID] {
            inherit(JobID(stringLiteral: "flaky-\(gpu)"), on: gpu)
            succeed(JobID(stringLiteral: "well-\(gpu)"), on: gpu)
        }
        eightAreNeeded()
    }

    /// A failure on one of cards 1 to 3, each of which does well after it.
    private mutating func recoverUnplaced(_ job: JobID) {
        inheritUnplaced(job, among: [1, 2, 3])
        for gpu in [1, 2, 3] as [GPUID] { succeed(job, on: gpu) }
    }

    @Test mutating func whereverItFailedTheCardHasRecoveredWhenAllHaveDoneWell() {
        for job in ["a", "b"] as [JobID] { recoverUnplaced(job) }
        eightAreNeeded()
    }

    @Test mutating func aCardThatHasNotDoneWellMayBeTheOneThatFailed() {
        for job in ["a", "b", "c", "d"] as [JobID] {
            inheritUnplaced(job, among: [1, 2, 3])
            for gpu in [2, 3] as [GPUID] { succeed(job, on: gpu) }
        }
        for index in 0..<3 { fail(JobID(stringLiteral: "j\(index)"), on: 1) }
        succeed("x", on: 2)
        #expect(blamed(1)?.count == 3)
    }

    @Test mutating func whatOneOfAllCardsDidIsNoSignWhenOneWasForgottenOrTheTimeHasPassed() {
        for isForgotten in [true, false] {
            ledger = FailureLedger()
            for job in ["a", "b"] as [JobID] {
                inheritUnplaced(job, among: [1, 2, 3])
                if isForgotten { ledger.forget(3) } else { now = now + FailureLedger.recentTime + .seconds(1) }
                for gpu in [1, 2, 3] as [GPUID] { succeed(job, on: gpu) }
            }
            for index in 0..<3 { fail(JobID(stringLiteral: "j\(index)"), on: 1) }
            succeed("x", on: 2)
            #expect(blamed(1)?.count == 3)
        }
    }

    @Test mutating func itStaysSmall() {
        for index in 0..<2000 {
            fail(
                JobID(stringLiteral: "j\(index)"),
                on: 1,
                JobKind(.arguments(["p" + String(repeating: "x", count: index % 700)]))
            )
        }
        #expect(ledger.count <= FailureLedger.maximumKinds)
        for index in 0..<1000 { fail(JobID(stringLiteral: "k\(index)"), on: 2) }
        succeed("x", on: 3)
        #expect(blamed(2)?.count == FailureLedger.maximumFailures)
        #expect(blamed(2)?.first == "k984", "the oldest give way")
    }
}

@Suite("Kinds of jobs") struct JobKindTests {
    private func shell(_ line: String) -> JobKind { JobKind(.shell(line)) }

    @Test func numbersAndOptionsMakeNoKind() {
        #expect(shell("python3 train.py --seed 1") == shell("python3 train.py --seed 234 --fast"))
        #expect(shell("./run.sh 17") == shell("./run.sh 4"))
        #expect(shell("CUDA=1 X= python3 a.py") == shell("python3  a.py"))
        #expect(JobKind(.arguments(["python3", "train.py", "x"])) == shell("python3 train.py y"))
        #expect(shell("python3 -m pool.train a") == shell("python3 -m pool.train b"))
    }

    @Test func theProgramAndItsFirstArgumentDo() {
        #expect(shell("python3 train.py") != shell("python3 tain.py"))
        #expect(shell("python3 train.py") != shell("python2x train.py"))
        #expect(shell("python3 -m pool.train") != shell("python3 -m pool.test"))
        #expect(JobKind(.arguments(["ab"])) != JobKind(.arguments(["a", "b"])))
        #expect(shell("=x train") != shell("train"))
    }

    @Test func aHugeCommandIsLookedAtInPart() {
        let huge = String(repeating: "x", count: 100_000)
        #expect(shell(huge) == JobKind(.arguments([huge])))
        #expect(shell("") == shell("   \n"))
    }
}
