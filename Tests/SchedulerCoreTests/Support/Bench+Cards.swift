import JobModel
import WireJSON

@testable import SchedulerCore

/// Control records, probes and what is told of the cards.
extension Bench {
    /// Carries out the first write of a control record, and answers it; the stream's own delivery follows.
    mutating func answerControlWrite() {
        let write = controlWrites.removeFirst()
        let result = controls.write(write.record, expected: write.expected, at: now)
        send(.controlWritten(write.record.gpu, write.record.op, result))
        if let revision = controls.revision(write.record.gpu) { send(.cardControl(revision)) }
    }

    /// Answers the first write of a control record without storing anything.
    mutating func answerControlWrite(_ result: ControlResult) {
        let write = controlWrites.removeFirst()
        send(.controlWritten(write.record.gpu, write.record.op, result))
    }

    /// Asks for something to be done with a card, and has it stored.
    /// - Returns: the answer; nil when there is none yet.
    @discardableResult
    mutating func ask(
        _ verb: CardRequest.Verb,
        _ gpu: GPUID,
        reason: String = "because",
        delay: Duration? = nil,
        token: UInt64 = 99
    ) -> JSON? {
        send(.cardRequest(CardRequest(verb, gpu, reason: reason, delay: delay), RequestToken(token)))
        answer()
        return replies[token]?.last
    }

    /// The row of a card in `gpus`.
    mutating func row(_ gpu: GPUID) -> JSON? {
        send(.cardsAsked(RequestToken(98)))
        return replies[98]?.last?["gpus"]?.arrayValue?.first { $0["gpu_id"] == gpu.json }
    }

    mutating func cardState(_ gpu: GPUID) -> String? { row(gpu)?["state"]?.stringValue }

    /// Why a job waits, as `why` tells of one card.
    mutating func view(of gpu: GPUID, for job: JobID) -> JSON? {
        send(.whyAsked(job, RequestToken(97)))
        return replies[97]?.last?["cards"]?.arrayValue?.first { $0["gpu_id"] == gpu.json }
    }

    /// The details of the last announcement of an event.
    func told(_ event: String) -> JSONObject? { told.last { $0.event == event }?.details }

    /// Says what the probe asked for came to.
    mutating func endProbe(_ gpu: GPUID, _ result: ProbeResult = .works(evidence: "fine")) {
        send(.probeEnded(gpu, result))
        answer()
    }

    mutating func readSigns(
        _ gpu: GPUID,
        _ severity: CardReading.Sign.Severity?,
        hold: CardHold? = nil,
        temperature: Double? = 50
    ) {
        guard let life = life(of: gpu) else { return }
        let signs = severity.map { [CardReading.Sign(reason: "lost", evidence: "NVML 15", severity: $0)] } ?? []
        let reading = CardReading(
            gpu: gpu,
            incarnation: life,
            busyPercent: 0,
            temperature: temperature,
            hold: hold,
            health: signs
        )
        send(.reading(reading))
        answer()
    }
}
