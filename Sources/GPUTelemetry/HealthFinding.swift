/// A sign that a card is sick.
package struct HealthFinding: Sendable, Equatable {
    package let reason: Reason
    /// What was seen, for a person.
    package let evidence: String
    package let severity: Severity

    package init(_ reason: Reason, _ evidence: String, _ severity: Severity) {
        self.reason = reason
        self.evidence = evidence
        self.severity = severity
    }

    package enum Reason: String, Sendable {
        /// The device is gone from the bus.
        case gone
        /// It is there and does not answer.
        case unreachable
        /// The driver lost it.
        case lost
        case resetRequired = "reset_required"
        /// It was reset, and what was in its memory is lost.
        case reset
        case driverMismatch = "driver_mismatch"
        /// The driver no longer answers, or refuses work.
        case driverFailed = "driver_failed"
        case xid
        case coreDump = "core_dump"
        case wedged
        case linkNarrowed = "link_narrowed"
    }

    package enum Severity: String, Sendable {
        /// To be told, nothing else.
        case notice
        /// The running job is to be failed; the card goes on, watched.
        case probation
        /// The card must not be used until it is probed.
        case quarantine
    }
}

/// Finds signs of sickness by comparing what is seen with what was seen before.
package struct HealthWatch: Sendable, Equatable {
    /// The lanes that the link had when the card was known to be well. To be stored across restarts: the maximum is
    /// no measure, since a riser has one lane.
    package private(set) var linkBaseline: Int?
    private var vramLostCounter: UInt32?
    private var hadCoreDump: Bool?
    private var narrowSamples = 0

    /// Samples in a row before a narrow link counts: it is trained anew after a reset.
    package static let samplesToNarrow = 3

    package init(linkBaseline: Int? = nil) { self.linkBaseline = linkBaseline }

    /// What is wrong now. Things that happen once (a reset, an XID, a core dump) are found once; states as long as
    /// they last.
    package mutating func examine(_ signs: CardSigns) -> [HealthFinding] {
        guard signs.isPresent else { return [HealthFinding(.gone, "its PCI device directory is gone", .quarantine)] }
        var findings: [HealthFinding] = []
        if signs.configVendor == 0xFFFF {
            findings.append(HealthFinding(.unreachable, "PCI configuration space reads ffff", .quarantine))
        } else if signs.isConfigEmpty {
            findings.append(HealthFinding(.unreachable, "PCI configuration space is empty", .quarantine))
        }
        findings += examineDriver(signs)
        findings += examineCounter(signs.vramLostCounter)
        findings += signs.xids.map(Self.finding(ofXID:))
        findings += examineCoreDump(signs.hasCoreDump)
        findings += examineLink(signs.linkWidth)
        return findings
    }

    /// The card is known to be well as it is now: the link that it has then is its measure from here on.
    package mutating func accept() {
        linkBaseline = nil
        narrowSamples = 0
    }

    private func examineDriver(_ signs: CardSigns) -> [HealthFinding] {
        var findings: [HealthFinding] = []
        if signs.isAccelerationWorking == false {
            findings.append(HealthFinding(.driverFailed, "amdgpu: ACCEL_WORKING is 0", .quarantine))
        }
        if let code = signs.driverError {
            let text = SensorFault.text(ofErrno: code)
            // In reset, or asleep: the next look tells.
            let severity: HealthFinding.Severity = SensorFault.system(code).isTransient ? .notice : .quarantine
            findings.append(HealthFinding(.driverFailed, "the driver refuses: \(text)", severity))
        }
        if let code = signs.nvmlCode, let finding = Self.finding(ofNVML: code) { findings.append(finding) }
        return findings
    }

    private static func finding(ofNVML code: Int32) -> HealthFinding? {
        switch code {
        case NVMLStatus.gpuIsLost: HealthFinding(.lost, "NVML 15: GPU is lost", .quarantine)
        case NVMLStatus.resetRequired: HealthFinding(.resetRequired, "NVML 16: GPU requires a reset", .quarantine)
        case NVMLStatus.versionMismatch:
            HealthFinding(.driverMismatch, "NVML 18: driver and library differ; reboot or reload", .quarantine)
        case NVMLStatus.notFound: HealthFinding(.lost, "NVML 6: GPU not found", .quarantine)
        default: HealthFinding(.driverFailed, "NVML answers with error \(code)", .notice)
        }
    }

    private mutating func examineCounter(_ counter: UInt32?) -> [HealthFinding] {
        guard let counter else { return [] }
        defer { vramLostCounter = counter }
        guard let before = vramLostCounter, counter > before else { return [] }
        let evidence = "amdgpu's count of resets that lost VRAM went from \(before) to \(counter)"
        return [HealthFinding(.reset, evidence, .probation)]
    }

    private mutating func examineCoreDump(_ hasDump: Bool) -> [HealthFinding] {
        defer { hadCoreDump = hasDump }
        // One that was there at the first look is of an earlier time.
        guard hasDump, hadCoreDump == false else { return [] }
        return [HealthFinding(.coreDump, "the driver has dumped the card's state (devcoredump)", .probation)]
    }

    private mutating func examineLink(_ width: Int?) -> [HealthFinding] {
        guard let width, (1...32).contains(width) else { return [] }
        guard let baseline = linkBaseline, baseline >= width else {
            linkBaseline = width
            narrowSamples = 0
            return []
        }
        narrowSamples = width < baseline ? narrowSamples + 1 : 0
        guard narrowSamples >= Self.samplesToNarrow else { return [] }
        return [HealthFinding(.linkNarrowed, "PCIe link has x\(width), it had x\(baseline)", .notice)]
    }

    /// NVIDIA's XID catalogue: which of them are the job's fault, and which the card's.
    static func finding(ofXID xid: UInt64) -> HealthFinding {
        switch xid {
        // A program's fault: graphics engine exception, page fault, stopped by the user's own error.
        case 13, 31, 43, 45, 68, 69:
            HealthFinding(.xid, "XID \(xid): an error of the program that ran", .notice)
        // Fallen off the bus, firmware gone, uncorrectable memory or link errors.
        case 48, 62, 64, 74, 79, 95, 119, 120, 140, 143, 154:
            HealthFinding(.xid, xid == 79 ? "XID 79: fell off the bus" : "XID \(xid): a fault of the card", .quarantine)
        default: HealthFinding(.xid, "XID \(xid)", .probation)
        }
    }
}
