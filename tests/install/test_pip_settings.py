"""What pip is configured to is what uv uses."""

import pytest
from support.package_index import serving, write_wheel


@pytest.mark.parametrize("place", ["user", "install section", "old place", "PIP_CONFIG_FILE", "XDG_CONFIG_DIRS"])
def test_what_a_pip_conf_says_is_all_that_is_asked(lab, index, elsewhere, place):
    text = f"[{'install' if place == 'install section' else 'global'}]\nindex-url = {index.address}/simple\n"
    if place in ("user", "install section"):
        lab.pip_conf(text)
    else:
        path = lab.home / {"old place": ".pip/pip.conf", "XDG_CONFIG_DIRS": "xdg/pip/pip.conf"}.get(place, "any.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if place == "PIP_CONFIG_FILE":
            lab.env[place] = str(path)
        if place == "XDG_CONFIG_DIRS":
            lab.env[place] = f"{lab.home / 'xdg'}:/none"
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}
    assert len(index.asked) >= 4
    assert elsewhere.hosts == []


def test_an_extra_index_is_one_more_index_as_it_is_for_pip(lab, index, elsewhere, tmp_path):
    write_wheel(tmp_path / "extra/simple", "tiny", "0.5")
    write_wheel(tmp_path / "extra/simple", "mine", "3.0")
    lab.lock("tiny==1.0", "mine==3.0")
    with serving(tmp_path / "extra") as extra:
        lab.pip_conf(f"[global]\nindex_url = {index.address}/simple\nextra-index-url =\n    {extra.address}/simple\n")
        lab.setup()
    assert lab.installed() == {"tiny==1.0", "mine==3.0"}
    assert elsewhere.hosts == []


def test_uv_s_own_settings_win_over_pip_s(lab, index, elsewhere):
    lab.pip_conf("[global]\nindex-url = https://mirror.invalid/simple\nextra-index-url = https://more.invalid/simple\n")
    lab.env["UV_DEFAULT_INDEX"] = f"{index.address}/simple"
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}
    assert elsewhere.hosts == []


def test_pip_s_proxy_and_its_folder_of_wheels_are_used(lab, index, elsewhere):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        del lab.env[name]
    lab.pip_conf(f"[global]\nproxy = {elsewhere.address}\nfind-links = {index.root}/simple\n")
    lab.env["UV_DEFAULT_INDEX"] = "https://index.invalid/simple"
    lab.env["UV_HTTP_RETRIES"] = "0"
    lab.refused()
    assert set(elsewhere.hosts) == {"index.invalid"}
    lab.env["UV_OFFLINE"] = "1"
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}


def test_where_pip_asks_no_index_its_folder_of_wheels_is_all_there_is(lab, index, elsewhere):
    lab.pip_conf(f"[install]\nno-index = yes\nfind-links = {index.root}/simple\n")
    assert "as pip is configured with no-index" in lab.setup()
    assert lab.installed() == {"tiny==1.0"}
    assert (index.asked, elsewhere.hosts) == ([], [])


def test_pip_s_settings_that_can_t_be_read_are_one_line(lab):
    lab.pip_conf("index-url = no section\n")
    assert "pip's settings can't be read" in lab.refused()
