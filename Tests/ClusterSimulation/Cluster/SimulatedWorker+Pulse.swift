import JobModel
import WorkerCore

/// What a worker tells of itself and its card, after `WorkerPulse` and `CardKeeper`.
extension SimulatedWorker {
    // MARK: pulse

    private static let answerable: UInt64 = 64

    var answerInbox: String { "_INBOX.\(incarnation).heartbeat" }

    /// Workers of an older version send plain heartbeats.
    private var canFence: Bool { !(cluster.scenario.hasOldWorker && gpu == cluster.workers.first?.gpu) }

    func hear(_ answer: HeartbeatAnswer) {
        guard let sentAt = sent.removeValue(forKey: answer.counter) else { return }
        receive(.heartbeatAnswered(sentAt: sentAt))
    }

    func beat() {
        guard isReady, let core else { return }
        counter += 1
        sent[counter] = clock
        if counter > Self.answerable { sent[counter - Self.answerable] = nil }
        let heartbeat = Heartbeat(
            gpu: gpu,
            incarnation: incarnation,
            counter: counter,
            slots: slots,
            running: core.running,
            isDraining: core.isDraining,
            canFence: canFence,
            time: clock.seconds
        )
        let inbox = canFence ? "\(answerInbox).\(counter)" : nil
        connection.publish(.heartbeat(heartbeat, replyTo: inbox), on: names.heartbeat)
    }

    func keepBeating() {
        beat()
        after(.seconds(5)) { [self] in keepBeating() }
    }

    func keepLooking() {
        look(tells: true)
        after(.seconds(5)) { [self] in keepLooking() }
    }

    // MARK: the card

    func heatUp(_ duration: Duration) {
        cluster.tell("card \(gpu) of \(name) is too hot for \(duration.text)")
        hotUntil = cluster.now + duration
    }

    func fallSick() {
        cluster.tell("card \(gpu) of \(name) is sick")
        isSick = true
    }

    func cure() {
        hotUntil = cluster.now
        isSick = false
    }

    func look(tells: Bool) {
        let isHot = hotUntil > cluster.now
        let before = hold
        let next: CardHold? =
            if isSick {
                CardHold(.unhealthy, reason: "NVML 15")
            } else if isHot {
                CardHold(cluster.chance.hit(0.5) ? .overheated : .hot, reason: "too hot")
            } else {
                nil
            }
        hold = next
        if isSick, before == nil { receive(.cardFailed(reason: "NVML 15")) }
        receive(.cardHeld(next))
        guard tells, isReady else { return }
        let sign = CardReading.Sign(reason: "lost", evidence: "NVML 15", severity: .quarantine)
        let reading = CardReading(
            gpu: gpu,
            incarnation: incarnation,
            busyPercent: liveProcesses.isEmpty ? 0 : 99,
            temperature: isHot ? 90 : 60,
            hold: next,
            health: isSick ? [sign] : []
        )
        connection.publish(.reading(reading), on: names.metrics)
    }

    func probe() {
        after(cluster.chance.seconds(0.5...3)) { [self] in
            let works = !isSick || cluster.chance.hit(0.5) || cluster.isCalm
            if works { isSick = false }
            look(tells: true)
            receive(.probeEnded(WorkerAnswer(ok: works, evidence: "tried")))
        }
    }
}
