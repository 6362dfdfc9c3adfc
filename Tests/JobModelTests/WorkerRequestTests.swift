import Testing
import WireJSON

import JobModel

@Suite("Requests to workers") struct WorkerRequestTests {
    private let job = JobID("a")
    private let attempt = AttemptID("b1")

    @Test func requestsSurviveTheWire() throws {
        let (job, attempt) = (try #require(job), try #require(attempt))
        for request in [
            WorkerRequest.cancel(job, attempt), .probe, .evict(job, attempt, .drained, reason: "card 3 is drained"),
            .evict(job, attempt, .cardFailed, reason: ""),
        ] {
            #expect(try WorkerRequest(request.verb, parsing: request.encoded()) == request)
        }
        let names = PoolNames(subjectPrefix: "p.")
        #expect(names.workerRequest(try #require(GPUID("rig1-3")), .evict) == "p.gpu.worker.rig1-3.evict")
    }

    @Test(arguments: [
        (WorkerRequest.Verb.cancel, #"{"task_id":"a"}"#), (.cancel, #"{"task_id":"a b","attempt_id":"c"}"#),
        (.cancel, "["), (.evict, #"{"task_id":"a","attempt_id":"b"}"#),
        (.evict, #"{"task_id":"a","attempt_id":"b","code":"exit"}"#),
        (.evict, #"{"task_id":"a","attempt_id":"b","code":7}"#), (.probe, "nonsense"),
    ])
    func whatIsMissingIsTold(verb: WorkerRequest.Verb, body: String) {
        let error = #expect(throws: MalformedMessage.self) { try WorkerRequest(verb, parsing: Array(body.utf8)) }
        #expect(error?.description.contains("request") == true)
    }

    @Test func anEvictionTakesCodesThatCostNoRetryAlone() throws {
        for code in FailureCode.allCases {
            let body = #"{"task_id":"a","attempt_id":"b","code":"\#(code.rawValue)","reason":"x"}"#
            let request = Result { try WorkerRequest(.evict, parsing: Array(body.utf8)) }
            #expect(((try? request.get()) != nil) == code.isGivenBack)
            if code.isGivenBack { #expect(!RetryPolicy.isRetryable(code)) }
        }
    }

    @Test func aLongReasonIsCut() throws {
        let reason = String(repeating: "é", count: 2000)
        let body = #"{"task_id":"a","attempt_id":"b","code":"drained","reason":"\#(reason)"}"#
        guard case .evict(_, _, _, let kept) = try WorkerRequest(.evict, parsing: Array(body.utf8)) else {
            Issue.record("not an eviction")
            return
        }
        #expect(kept.count == WorkerRequest.reasonLimit)
    }

    @Test func answersSurviveTheWire() throws {
        for answer in [
            WorkerAnswer.done, .refused("no"), WorkerAnswer(ok: false, evidence: "NVML 15: GPU is lost"),
            WorkerAnswer(ok: true, evidence: "61 °C"),
        ] {
            #expect(try WorkerAnswer(parsing: answer.encoded()) == answer)
        }
        #expect(throws: MalformedMessage.self) { try WorkerAnswer(parsing: Array("{}".utf8)) }
    }
}
